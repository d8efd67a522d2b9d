//! An error as PostgreSQL has it: SQLSTATE, message, detail, hint.

use pgrx::pg_sys::panic::{CaughtError, ErrorReport};
use pgrx::prelude::*;
use std::fmt;

/// An error on its way to a user, a log or a catalog row.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Error {
    /// Five characters.
    pub sqlstate: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn new(code: PgSqlErrorCode, message: impl Into<String>) -> Self {
        Error {
            sqlstate: unpack(code as i32),
            message: message.into(),
            detail: None,
            hint: None,
        }
    }

    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Raises it as an ERROR in the current session.
    pub fn raise(self) -> ! {
        let mut report = ErrorReport::new(self.code(), self.message, "shadowpart");
        if let Some(detail) = self.detail {
            report = report.set_detail(detail);
        }
        if let Some(hint) = self.hint {
            report = report.set_hint(hint);
        }
        report.report(PgLogLevel::ERROR);
        unreachable!("an ERROR does not return")
    }

    pub fn code(&self) -> PgSqlErrorCode {
        PgSqlErrorCode::from(pack(&self.sqlstate))
    }

    /// What a lock timeout, a deadline or a deadlock leaves: worth another try a little later.
    pub fn is_transient(&self) -> bool {
        matches!(
            self.sqlstate.as_str(),
            "55P03" | "57014" | "40P01" | "40001"
        )
    }

    /// From an error that PostgreSQL or a panic raised and `PgTryBuilder` caught.
    pub fn caught(error: CaughtError) -> Self {
        match error {
            CaughtError::PostgresError(r) | CaughtError::ErrorReport(r) => Self::from_report(&r),
            CaughtError::RustPanic { ereport, .. } => Self::from_report(&ereport),
        }
    }

    fn from_report(r: &pgrx::pg_sys::panic::ErrorReportWithLevel) -> Self {
        Error {
            sqlstate: unpack(r.sql_error_code() as i32),
            message: r.message().to_owned(),
            detail: r.detail().map(str::to_owned),
            hint: r.hint().map(str::to_owned),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        if let Some(detail) = &self.detail {
            write!(f, " ({detail})")?;
        }
        Ok(())
    }
}

impl From<pgrx::spi::Error> for Error {
    fn from(error: pgrx::spi::Error) -> Self {
        Error::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, error.to_string())
    }
}

/// PostgreSQL packs the five characters of a SQLSTATE into six bits each.
fn unpack(mut code: i32) -> String {
    (0..5)
        .map(|_| {
            let c = (((code & 0x3f) as u8) + b'0') as char;
            code >>= 6;
            c
        })
        .collect()
}

fn pack(sqlstate: &str) -> i32 {
    sqlstate
        .bytes()
        .take(5)
        .enumerate()
        .fold(0, |code, (i, c)| {
            code | ((i32::from(c - b'0') & 0x3f) << (6 * i))
        })
}

/// The value, or the error raised: what a function that SQL calls ends with.
pub fn or_raise<T>(outcome: Result<T>) -> T {
    outcome.unwrap_or_else(|error| error.raise())
}
