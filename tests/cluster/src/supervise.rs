//! Starts again what dies.

use crate::unit::Unit;
use crate::{Cluster, FILE, secrets};
use anyhow::Result;
use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

const LOOK: Duration = Duration::from_millis(200);
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Who runs so long has recovered: its next death is a first one.
const RECOVERED: Duration = Duration::from_secs(30);

/// How often a part died lately.
struct Patient {
    wait: Duration,
    next: Instant,
    started: Instant,
}

impl Cluster {
    /// Writes `cluster.json`, and starts again what dies (each time after a longer wait) until `stop`. Then everything is
    /// ended in order, and the file removed first.
    ///
    /// # Errors
    /// When the file can't be written.
    pub async fn keep(self, stop: impl Future<Output = ()>, say: impl Fn(&str)) -> Result<()> {
        self.report()?.write(self.dir())?;
        let mut patients: HashMap<String, Patient> = HashMap::new();
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                _ = look.tick() => {
                    let mut changed = false;
                    for unit in self.units().iter().filter(|u| u.wanted() && !u.alive()) {
                        changed |= self.revive(unit, &mut patients, &say).await;
                    }
                    if changed {
                        self.report()?.write(self.dir())?;
                    }
                }
            }
        }
        secrets::remove(&self.dir().join(FILE))?;
        self.stop_all(&say).await;
        Ok(())
    }

    /// Starts a dead part, unless it died so often that it has to wait. Gives whether it was started.
    async fn revive(&self, unit: &Arc<Unit>, patients: &mut HashMap<String, Patient>, say: &impl Fn(&str)) -> bool {
        let now = Instant::now();
        let patient =
            patients.entry(unit.name.clone()).or_insert(Patient { wait: FIRST_WAIT, next: now, started: now });
        if patient.next > now {
            return false;
        }
        if now.duration_since(patient.started) > RECOVERED {
            patient.wait = FIRST_WAIT;
        }
        say(&format!("{} died; starting it again", unit.name));
        let outcome = self.launch(unit).await;
        let now = Instant::now();
        *patient = Patient { wait: (patient.wait * 2).min(LONGEST_WAIT), next: now + patient.wait, started: now };
        if let Err(e) = outcome {
            say(&format!("{}: {e:#}", unit.name));
        }
        true
    }
}
