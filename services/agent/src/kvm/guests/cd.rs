//! CD drives of running guests: what lies in them.
//!
//! Every machine has one drive from its start on, for none can be plugged in later. Guests read, and never write.

use super::devices::Live;
use super::{Guests, Parts, domain, done, spec, told};
use crate::executor::nothing;
use crate::hypervisor::{Done, Failure, Work};
use contract::ApiError;
use contract_agent::ChangeCd;
use libvirt::AffectFlags;
use std::path::{Path, PathBuf};

impl Guests {
    pub async fn change_cd(&self, work: &Work, parts: &Parts, order: ChangeCd) -> Result<Done, Failure> {
        self.refuse_for_containers("A CD drive")?;
        let wanted = order.cd.as_ref().map(spec::Cd::of).transpose()?;
        let _turn = self.turn(&order.vm_uuid).await;
        let live = self.live(&order.vm_uuid).await?.filter(|live| live.described.generation == order.generation);
        let Some(live) = live else {
            if order.lenient {
                return done(work, nothing());
            }
            return Err(ApiError::failed("The VM doesn't run on this host: its CD can't be changed here").into());
        };
        let file = match wanted.map(|cd| parts.storage.iso_file(&cd.pool, &cd.iso.to_string())) {
            Some(Err(error)) if order.lenient && !error.is_transient() => None,
            found => found.transpose()?,
        };
        match &live.described.drive {
            Some(drive) => {
                let there = drive.file.as_deref().map(PathBuf::from);
                let open = drive.open && file.is_some();
                if open && there == file {
                    // libvirt passes over a file that is in the drive already, though the guest has opened that.
                    put(&live, None).await?;
                }
                if open || there != file {
                    put(&live, file.as_deref()).await?;
                    self.describe_again(&order.vm_uuid).await?;
                }
            }
            None if file.is_none() => {}
            None => {
                let text = "The VM was started without a CD drive: stop it and start it to have one";
                return Err(ApiError::failed(text).into());
            }
        }
        done(work, nothing())
    }
}

/// Puts a file into the drive, or takes out what is there.
async fn put(live: &Live, file: Option<&Path>) -> Result<(), ApiError> {
    let xml = domain::drive(file).write().map_err(ApiError::param)?;
    let asked = live.lines.orders.update_device(&live.domain, &xml, AffectFlags::LIVE).await;
    match asked {
        // A guest that has mounted it keeps the drive shut: nothing is lost by opening it, for nothing is ever written.
        Err(error) if !error.is_lost() && !error.is_no_domain() => {
            tracing::debug!(domain = live.domain.name, %error, "a CD drive is opened by force");
            let forced = AffectFlags::LIVE | AffectFlags::FORCE;
            live.lines.orders.update_device(&live.domain, &xml, forced).await.map_err(|e| told(&e))
        }
        asked => asked.map_err(|e| told(&e)),
    }
}
