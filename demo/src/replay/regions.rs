//! Where the flights go: five partitions by region, each a list of airports.

/// A partition of the table.
pub struct Region {
    /// As the picture calls it.
    pub name: &'static str,
    pub partition: &'static str,
    airports: &'static str,
}

impl Region {
    pub fn airports(&self) -> impl Iterator<Item = &'static str> {
        self.airports.split_ascii_whitespace()
    }
}

pub const REGIONS: usize = 5;

/// Every destination of 2013 is in one of them: a DEFAULT partition is not needed.
pub const ALL: [Region; REGIONS] = [
    Region {
        name: "West and Texas",
        partition: "flights_west",
        airports: "LAX SFO DFW DEN IAH LAS PHX SEA SAN SLC AUS HOU PDX SNA HNL SAT LGB BUR OKC SJC TUL OAK SMF \
                   ABQ EGE BZN JAC PSP HDN MTJ ANC",
    },
    Region {
        name: "Midwest",
        partition: "flights_midwest",
        airports: "ORD DTW MSP CLE STL MDW CVG CMH MKE IND MCI DAY SDF CAK OMA GRR MSN DSM TVC SBN LEX",
    },
    Region {
        name: "Florida, Caribbean",
        partition: "flights_florida",
        airports: "MCO FLL MIA TPA PBI SJU RSW JAX SRQ BQN STT PSE EYW",
    },
    Region {
        name: "South",
        partition: "flights_south",
        airports: "ATL CLT RDU BNA MSY CHS MEM GSO XNA GSP SAV TYS BHM AVL CAE ILM MYR",
    },
    Region {
        name: "Northeast",
        partition: "flights_northeast",
        airports: "BOS DCA IAD BUF PIT BTV RIC ROC PWM BWI SYR PHL ORF MHT BDL ALB PVD BGR ACK MVY CRW CHO LGA",
    },
];

const COLUMNS: &str = "
    id              bigint NOT NULL,
    dest            text NOT NULL,
    carrier         text NOT NULL,
    flight          integer NOT NULL,
    tailnum         text,
    origin          text NOT NULL,
    time_hour       timestamptz NOT NULL,
    dep_time        smallint,
    dep_delay       smallint,
    sched_arr_time  smallint,
    distance        smallint,
    arr_time        smallint,
    arr_delay       smallint,
    air_time        smallint";

/// The table, its partitions, and a plain table for what it has to hold in the end.
pub fn schema() -> String {
    let mut sql = format!(
        "CREATE TABLE flights ({COLUMNS}, PRIMARY KEY (dest, id)) PARTITION BY LIST (dest);
         CREATE TABLE flights_expected ({COLUMNS}, PRIMARY KEY (id));"
    );
    for region in &ALL {
        let airports: Vec<String> = region.airports().map(|code| format!("'{code}'")).collect();
        sql += &format!(
            "CREATE TABLE {} PARTITION OF flights FOR VALUES IN ({});",
            region.partition,
            airports.join(", ")
        );
    }
    sql
}

/// Which region an airport lies in.
pub fn of(airport: &str) -> Option<usize> {
    ALL.iter()
        .position(|region| region.airports().any(|code| code == airport))
}

/// Airports, in the order of the regions.
pub fn airports() -> impl Iterator<Item = &'static str> {
    ALL.iter().flat_map(Region::airports)
}
