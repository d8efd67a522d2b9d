//! Words for what the stories do with shadows, so that they read as stories.

use crate::session::Session;
use crate::wait;
use anyhow::{Context, Result, bail};
use std::time::Duration;

/// No job of these tests takes longer, on a machine with two busy cores.
const JOB_TIMEOUT: Duration = Duration::from_secs(120);

impl Session {
    /// Moves one entity and waits until it has moved.
    pub fn migrate(&mut self, table: &str, entity: &str, tablespace: &str) -> Result<i64> {
        self.number(&format!(
            "SELECT shadow_migrate('{table}', '{}', tablespace => '{tablespace}')",
            entity.replace('\'', "''")
        ))
    }

    /// Starts to move one entity and does not wait.
    pub fn start_migrate(&mut self, table: &str, entity: &str, tablespace: &str) -> Result<i64> {
        self.number(&format!(
            "SELECT shadow_migrate('{table}', '{}', tablespace => '{tablespace}', wait => false)",
            entity.replace('\'', "''")
        ))
    }

    pub fn create_shadow(&mut self, table: &str, entity: &str, tablespace: &str) -> Result<i64> {
        self.number(&format!(
            "SELECT shadow_create('{table}', '{}', tablespace => '{tablespace}')",
            entity.replace('\'', "''")
        ))
    }

    pub fn swap(&mut self, id: i64) -> Result<()> {
        self.run(&format!("SELECT shadow_swap({id})"))
    }

    pub fn revert(&mut self, id: i64) -> Result<()> {
        self.run(&format!("SELECT shadow_revert({id})"))
    }

    pub fn finalize(&mut self, id: i64) -> Result<()> {
        self.run(&format!("SELECT shadow_finalize({id})"))
    }

    pub fn drop_shadow(&mut self, id: i64) -> Result<()> {
        self.run(&format!("SELECT shadow_drop({id})"))
    }

    pub fn state(&mut self, id: i64) -> Result<String> {
        self.value(&format!("SELECT state FROM shadow_status WHERE id = {id}"))
    }

    /// Waits until the job is in one of these states, and gives it.
    pub fn wait_for_state(&mut self, id: i64, states: &[&str]) -> Result<String> {
        let mut last = String::new();
        wait::until(&format!("job {id} is {states:?}"), JOB_TIMEOUT, || {
            last = self.state(id)?;
            if states.contains(&last.as_str()) {
                return Ok(Some(last.clone()));
            }
            if last == "failed" {
                bail!("job {id} failed: {}", self.last_error(id)?);
            }
            Ok(None)
        })
        .with_context(|| format!("it is {last}"))
    }

    /// Waits until the job rests: nothing more happens to it by itself.
    pub fn wait_until_settled(&mut self, id: i64) -> Result<String> {
        const AT_REST: [&str; 6] = [
            "ready",
            "migrated",
            "finalized",
            "dropped",
            "failed",
            "cancelled",
        ];
        wait::until(&format!("job {id} rests"), JOB_TIMEOUT, || {
            let row = self.rows(&format!(
                "SELECT state, goal, last_error FROM shadow_status WHERE id = {id}"
            ))?;
            // A job whose record has gone with it has been rolled back.
            let Some(row) = row.into_iter().next() else {
                return Ok(Some("dropped".into()));
            };
            let [Some(state), goal, _] = row.as_slice() else {
                bail!("no state: {row:?}")
            };
            let goal = goal.as_deref().unwrap_or(state);
            let done = AT_REST.contains(&state.as_str())
                && (goal == state || ["failed", "cancelled", "dropped"].contains(&state.as_str()));
            Ok(done.then(|| state.clone()))
        })
        .with_context(|| format!("{:?}", self.rows("SELECT * FROM shadow_status")))
    }

    pub fn last_error(&mut self, id: i64) -> Result<String> {
        self.value(&format!(
            "SELECT last_error FROM shadow_status WHERE id = {id}"
        ))
    }
}
