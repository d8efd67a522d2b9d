//! What the worker keeps in its memory: the predictor, and for each entity and partition what the predictor
//! does not need but a decision does.
//!
//! Bounded by [`ENTITIES_MAX`] and [`PARTITIONS_MAX`]; whoever has been idle for eight days goes first.

use super::resource;
use super::series::{self, FLOWS, Slot};
use ::autopilot::resource::Resource;
use predict::{Calendar, Config, Predictor};
use std::collections::{HashMap, HashSet, VecDeque};

/// Entities that are followed one by one; 9 kB each with slots of five minutes.
pub const ENTITIES_MAX: usize = 10_000;
/// Partitions that are followed.
pub const PARTITIONS_MAX: usize = 400;
/// Sizes of a partition that its growth is read from.
const SIZES_MAX: usize = 48;
/// Days without any load after which an entity is forgotten.
const IDLE_DAYS: i64 = 8;
/// Weight of the newest slot in the load that an entity is taken to have now.
const NEWEST: f64 = 0.3;

#[derive(Clone, Debug)]
pub struct Entity {
    pub relation: u32,
    pub name: String,
    pub partition: u32,
    /// Per second, smoothed over the last slots.
    pub rates: [f64; FLOWS],
    /// Rows written per second in the newest slots that were measured.
    recent: VecDeque<(i64, f64)>,
    active: i64,
}

#[derive(Clone, Debug, Default)]
pub struct Partition {
    pub relation: u32,
    /// Per second, in the newest slot that was measured.
    pub rates: [f64; FLOWS],
    /// Microseconds since 2000, and bytes.
    pub sizes: VecDeque<(i64, f64)>,
    /// The newest slots with their loads, as far back as open forecasts and their averages reach.
    recent: VecDeque<(i64, [f64; FLOWS])>,
    active: i64,
}

pub struct Memory {
    pub predictor: Predictor,
    pub entities: HashMap<u64, Entity>,
    pub partitions: HashMap<u32, Partition>,
    /// The slot that comes next.
    pub next: Option<i64>,
    /// Stretches that the predictor was told not to learn from: unit, begin and end in microseconds.
    pub excluded: HashSet<(u64, i64, i64)>,
}

/// What the settings say the grid is, and what is predicted on it.
pub fn config() -> Config {
    use crate::guc;
    let step_us = i64::from(guc::PREDICT_SLOT_MS.get()) * 1000;
    let day_us = i64::from(guc::DAY_LENGTH_MS.get()) * 1000;
    let slots = u32::try_from((day_us + step_us / 2) / step_us).unwrap_or(u32::MAX);
    Config {
        calendar: Calendar::new(step_us, slots),
        trigger_minutes: guc::PREDICT_HORIZON_MIN.get().unsigned_abs(),
        entities_max: ENTITIES_MAX,
        units_max: PARTITIONS_MAX * Resource::ALL.len(),
        ..Config::default()
    }
}

impl Memory {
    pub fn new(predictor: Predictor) -> Memory {
        Memory {
            predictor,
            entities: HashMap::new(),
            partitions: HashMap::new(),
            next: None,
            excluded: HashSet::new(),
        }
    }

    pub fn step_us(&self) -> i64 {
        self.predictor.config().calendar.step_us()
    }

    fn day_slots(&self) -> i64 {
        i64::from(self.predictor.config().calendar.slots_per_day())
    }

    /// Takes the slot that comes next; `None`: nothing is known of it. True: it is time to retrain.
    pub fn push(&mut self, number: i64, slot: Option<&Slot>) -> bool {
        let nothing = Slot::default();
        let slot = slot.unwrap_or(&nothing);
        let mut rates: HashMap<u64, [f64; FLOWS]> = HashMap::new();
        for load in &slot.entities {
            let id = series::entity_id(load.relation, &load.entity);
            let sum = rates.entry(id).or_default();
            for (sum, rate) in sum.iter_mut().zip(load.rates) {
                *sum += rate;
            }
            if !self.entities.contains_key(&id) && self.entities.len() >= ENTITIES_MAX {
                continue;
            }
            let entity = self.entities.entry(id).or_insert_with(|| Entity {
                relation: load.relation,
                name: load.entity.clone(),
                partition: load.partition,
                rates: [0.0; FLOWS],
                recent: VecDeque::new(),
                active: number,
            });
            if load.partition != 0 {
                entity.partition = load.partition;
            }
            entity.active = number;
        }
        let kept = self.predictor.config().calendar.horizons()[predict::HORIZONS - 1] + 8;
        let mut entity_loads = Vec::with_capacity(self.entities.len());
        for (id, entity) in &mut self.entities {
            if !slot.entities_of.contains(&entity.relation) {
                continue;
            }
            // Of a table that was looked at, who has no row has done nothing.
            let new = rates.get(id).copied().unwrap_or_default();
            for (old, new) in entity.rates.iter_mut().zip(new) {
                *old += NEWEST * (new - *old);
            }
            entity.recent.push_back((number, new[0]));
            while entity
                .recent
                .front()
                .is_some_and(|(at, _)| *at <= number - kept)
            {
                entity.recent.pop_front();
            }
            entity_loads.push((*id, new[0]));
        }
        let unit_loads = self.push_partitions(number, slot);
        let day_slots = self.day_slots();
        if number % day_slots == 0 {
            self.forget(number - IDLE_DAYS * day_slots);
        }
        self.next = Some(number + 1);
        let at_us = self.predictor.config().calendar.start_us(number);
        match self.predictor.push(at_us, &entity_loads, &unit_loads) {
            Ok(pushed) => pushed.retrain_due,
            // The clock was set back: what has been is not there twice.
            Err(_) => false,
        }
    }

    fn push_partitions(&mut self, number: i64, slot: &Slot) -> Vec<(u64, f64)> {
        let config = *self.predictor.config();
        let kept = config.trigger_slots() + 2 * config.smooth_slots() + 8;
        let end_us = config.calendar.start_us(number + 1);
        let mut loads: HashMap<u32, [f64; FLOWS]> = HashMap::new();
        for load in &slot.partitions {
            loads.insert(load.partition, load.rates);
            if !self.partitions.contains_key(&load.partition) {
                if self.partitions.len() >= PARTITIONS_MAX {
                    continue;
                }
                // Units exist before their first load, or it would be dropped.
                for resource in &resource::FLOWS {
                    self.predictor
                        .set_unit(series::unit_id(load.partition, *resource), None, &[]);
                }
            }
            let partition = self.partitions.entry(load.partition).or_default();
            partition.relation = load.relation;
            partition.active = number;
            if let Some(size) = load.size {
                if partition.sizes.len() >= SIZES_MAX {
                    partition.sizes.pop_front();
                }
                partition.sizes.push_back((end_us, size));
            }
        }
        let mut unit_loads = Vec::new();
        for (oid, partition) in &mut self.partitions {
            if !slot.partitions_of.contains(&partition.relation) {
                continue;
            }
            let rates = loads.get(oid).copied().unwrap_or_default();
            partition.rates = rates;
            partition.recent.push_back((number, rates));
            while partition
                .recent
                .front()
                .is_some_and(|(at, _)| *at <= number - kept)
            {
                partition.recent.pop_front();
            }
            for (resource, rate) in resource::FLOWS.iter().zip(rates) {
                unit_loads.push((series::unit_id(*oid, *resource), rate));
            }
        }
        unit_loads
    }

    fn forget(&mut self, idle_since: i64) {
        let Memory {
            predictor,
            entities,
            partitions,
            ..
        } = self;
        entities.retain(|id, entity| {
            let keep = entity.active > idle_since;
            if !keep {
                predictor.remove_entity(*id);
            }
            keep
        });
        partitions.retain(|oid, partition| {
            let keep = partition.active > idle_since;
            if !keep {
                for resource in Resource::ALL {
                    predictor.remove_unit(series::unit_id(*oid, *resource));
                }
            }
            keep
        });
    }

    /// Rows per second that an entity wrote in a slot.
    pub fn entity_load(&self, id: u64, slot: i64) -> Option<f64> {
        let recent = &self.entities.get(&id)?.recent;
        recent
            .iter()
            .find(|(at, _)| *at == slot)
            .map(|(_, load)| *load)
    }

    /// What became of a forecast: the largest averaged load of the slots after one up to another, and the
    /// first of them that ended with an average of at least the capacity. `None`: too little was measured.
    pub fn outcome(
        &self,
        partition: u32,
        flow: usize,
        after: i64,
        until: i64,
        capacity: Option<f64>,
    ) -> Option<(f64, Option<i64>)> {
        let recent = &self.partitions.get(&partition)?.recent;
        let smooth = self.predictor.config().smooth_slots();
        let mut peak: Option<f64> = None;
        let mut crossed = None;
        for slot in after + 1..=until {
            let window = (recent.iter())
                .filter(|(at, _)| *at > slot - smooth && *at <= slot)
                .filter_map(|(_, rates)| rates.get(flow));
            let (sum, count) =
                window.fold((0.0, 0u32), |(sum, count), rate| (sum + rate, count + 1));
            if count == 0 {
                continue;
            }
            let mean = sum / f64::from(count);
            peak = Some(peak.map_or(mean, |peak: f64| peak.max(mean)));
            if crossed.is_none() && capacity.is_some_and(|capacity| mean >= capacity) {
                crossed = Some(slot);
            }
        }
        // Half of the stretch has to be known for what was not seen not to matter much.
        let known = recent
            .iter()
            .filter(|(at, _)| *at > after && *at <= until)
            .count() as i64;
        (2 * known >= until - after).then_some((peak?, crossed))
    }
}
