//! Whether searches are answered, found out by doing one; not more often than every few seconds.

use std::time::Duration;

use tokio::sync::Mutex;

use crate::problem::Problem;

/// How long the outcome of a trial counts.
pub const FRESH: Duration = Duration::from_secs(5);

/// When the last trial was, and how it went.
#[derive(Debug, Default)]
pub struct Trial(Mutex<Option<(Duration, Result<(), Problem>)>>);

impl Trial {
    /// The last outcome if it is fresh, else that of a new trial. Those who ask at once wait for one.
    ///
    /// # Errors
    /// Why searches are not answered.
    pub async fn outcome(
        &self,
        now: Duration,
        attempt: impl Future<Output = Result<(), Problem>>,
    ) -> Result<(), Problem> {
        let mut last = self.0.lock().await;
        if let Some((when, outcome)) = &*last
            && now.saturating_sub(*when) < FRESH
        {
            return outcome.clone();
        }
        let outcome = attempt.await;
        *last = Some((now, outcome.clone()));
        outcome
    }
}
