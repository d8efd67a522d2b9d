//! A connection that says all the server said when something fails, and keeps the notices.

use anyhow::{Context, Result, anyhow, bail, ensure};
use postgres::error::{DbError, ErrorPosition};
use postgres::{CancelToken, Client, NoTls, SimpleQueryMessage};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};

pub struct Session {
    client: Client,
    notices: Arc<Mutex<Vec<String>>>,
    /// The process that serves this session.
    pub pid: u32,
}

/// One row of a simple query, every value as text.
pub type Row = Vec<Option<String>>;

/// What a statement that had to fail failed with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    pub sqlstate: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    pub context: Option<String>,
    pub schema: Option<String>,
    pub table: Option<String>,
    pub column: Option<String>,
    pub datatype: Option<String>,
    pub constraint: Option<String>,
    pub position: Option<u32>,
}

impl Session {
    pub(crate) fn open(parameters: &str) -> Result<Self> {
        let mut config: postgres::Config = parameters.parse()?;
        let notices = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&notices);
        config.notice_callback(move |notice| {
            let mut text = format!("{}: {}", notice.severity(), notice.message());
            for more in [notice.detail(), notice.hint()].into_iter().flatten() {
                text.push_str(" | ");
                text.push_str(more);
            }
            sink.lock()
                .expect("nobody panics with this lock")
                .push(text);
        });
        let mut client = config.connect(NoTls).map_err(explain)?;
        let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[])?.get(0);
        Ok(Self {
            client,
            notices,
            pid: pid as u32,
        })
    }

    /// Runs statements and forgets what they return.
    pub fn run(&mut self, sql: &str) -> Result<()> {
        self.client
            .batch_execute(sql)
            .map_err(explain)
            .with_context(|| sql.to_owned())
    }

    /// Runs statements and gives the rows of all of them.
    pub fn rows(&mut self, sql: &str) -> Result<Vec<Row>> {
        let messages = self
            .client
            .simple_query(sql)
            .map_err(explain)
            .with_context(|| sql.to_owned())?;
        Ok(messages
            .iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(
                    (0..row.len())
                        .map(|i| row.get(i).map(str::to_owned))
                        .collect(),
                ),
                _ => None,
            })
            .collect())
    }

    /// How many rows a statement inserted, changed, deleted or returned.
    pub fn count_of(&mut self, sql: &str) -> Result<u64> {
        let messages = self
            .client
            .simple_query(sql)
            .map_err(explain)
            .with_context(|| sql.to_owned())?;
        messages
            .iter()
            .rev()
            .find_map(|message| match message {
                SimpleQueryMessage::CommandComplete(count) => Some(*count),
                _ => None,
            })
            .with_context(|| format!("no command completed in: {sql}"))
    }

    /// The one value of the one row; NULL is the text "NULL".
    pub fn value(&mut self, sql: &str) -> Result<String> {
        let rows = self.rows(sql)?;
        ensure!(
            rows.len() == 1 && rows[0].len() == 1,
            "one value expected, not {rows:?}, from: {sql}"
        );
        Ok(rows[0][0].clone().unwrap_or_else(|| "NULL".into()))
    }

    pub fn number(&mut self, sql: &str) -> Result<i64> {
        let value = self.value(sql)?;
        value
            .parse()
            .with_context(|| format!("a number expected, not \"{value}\", from: {sql}"))
    }

    /// The first column of all rows.
    pub fn column(&mut self, sql: &str) -> Result<Vec<String>> {
        Ok(self
            .rows(sql)?
            .into_iter()
            .filter_map(|row| row.into_iter().next())
            .map(|value| value.unwrap_or_else(|| "NULL".into()))
            .collect())
    }

    /// Runs a statement that must fail, and gives its error. Its success is an error.
    pub fn failure(&mut self, sql: &str) -> Result<Failure> {
        match self.client.simple_query(sql) {
            Ok(messages) => bail!("succeeded, but should have failed: {sql}\n{messages:?}"),
            Err(error) => match error.as_db_error() {
                Some(error) => Ok(Failure::from(error)),
                None => Err(explain(error)).with_context(|| sql.to_owned()),
            },
        }
    }

    /// The notices since the last call.
    pub fn notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices.lock().expect("nobody panics with this lock"))
    }

    pub fn cancel_token(&self) -> CancelToken {
        self.client.cancel_token()
    }
}

impl Deref for Session {
    type Target = Client;
    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

impl From<&DbError> for Failure {
    fn from(error: &DbError) -> Self {
        let own = |text: Option<&str>| text.map(str::to_owned);
        Self {
            sqlstate: error.code().code().to_owned(),
            message: error.message().to_owned(),
            detail: own(error.detail()),
            hint: own(error.hint()),
            context: own(error.where_()),
            schema: own(error.schema()),
            table: own(error.table()),
            column: own(error.column()),
            datatype: own(error.datatype()),
            constraint: own(error.constraint()),
            position: match error.position() {
                Some(ErrorPosition::Original(position)) => Some(*position),
                _ => None,
            },
        }
    }
}

/// All that the server said of an error; `postgres::Error` itself prints as "db error".
pub(crate) fn describe(error: &postgres::Error) -> Option<String> {
    let db = error.as_db_error()?;
    let mut text = format!("{} {}: {}", db.severity(), db.code().code(), db.message());
    for (name, value) in [
        ("DETAIL", db.detail()),
        ("HINT", db.hint()),
        ("CONTEXT", db.where_()),
    ] {
        if let Some(value) = value {
            text.push_str(&format!("\n  {name}: {value}"));
        }
    }
    Some(text)
}

/// An error that says all; the error itself stays underneath, for [`sqlstate`].
pub(crate) fn explain(error: postgres::Error) -> anyhow::Error {
    match describe(&error) {
        Some(text) => anyhow!(error).context(text),
        None => anyhow!(error),
    }
}

/// The SQLSTATE of an error of a [`Session`], if the server sent one.
pub fn sqlstate(error: &anyhow::Error) -> Option<&str> {
    error
        .downcast_ref::<postgres::Error>()?
        .code()
        .map(|code| code.code())
}
