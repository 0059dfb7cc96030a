//! The end of a router: nothing of it stays.

use super::store::Store;
use super::{Routers, links};
use crate::host::files;
use crate::host::{HostError, namespace, process};
use std::sync::PoisonError;

impl Routers {
    /// Removes a router with its processes, devices, namespace and files; one that isn't there is removed already. May be
    /// repeated after a failure or a kill; [`Routers::resume`] does so by itself.
    ///
    /// # Errors
    /// Something of it can't be removed; the rest is.
    pub async fn remove(&self, uuid: &str) -> Result<(), HostError> {
        let slot = self.slot(uuid)?;
        let mut state = slot.state.lock().await;
        if state.gone {
            return Ok(());
        }
        let context = &slot.context;
        if context.layout.dir().exists() {
            files::replace(&context.layout.leaving(), b"", 0o600)?;
            context.at("leaving")?;
        }
        slot.guests.stop();
        process::end(&context.namespace, &context.layout.dnsmasq_conf()).await?;
        process::end(&context.namespace, &context.layout.haproxy_conf()).await?;
        context.at("ended")?;
        links::unplug(context).await?;
        context.at("unplugged")?;
        namespace::remove(&context.name).await?;
        context.at("namespace-gone")?;
        for segment in Store(&context.layout).segments()? {
            self.segments.release(&segment).await?;
        }
        context.at("released")?;
        // The marker goes last: while it is there, the removal isn't over.
        for entry in std::fs::read_dir(context.layout.dir()).into_iter().flatten().flatten() {
            let path = entry.path();
            if path != context.layout.leaving() {
                if path.is_dir() { files::remove_folder(&path)? } else { files::remove(&path)? }
            }
        }
        files::remove_folder(context.layout.dir())?;
        state.gone = true;
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).remove(uuid);
        Ok(())
    }
}
