//! dnsmasq.

use super::Context;
use crate::compile::Compiled;
use crate::dnsmasq::Dnsmasq;
use crate::host::HostError;
use crate::host::files;
use crate::host::process::{self, Record};
use crate::host::tools::run_in;
use rustix::process::Signal;
use std::collections::BTreeSet;

/// Everybody may read it: dnsmasq does once it has given up root.
const MODE: u32 = 0o644;

/// Whether dnsmasq takes its configuration.
pub(super) async fn check(context: &Context, compiled: &Compiled) -> Result<(), HostError> {
    match &compiled.dnsmasq {
        Some(wanted) => test(context, wanted).await,
        None => Ok(()),
    }
}

async fn test(context: &Context, wanted: &Dnsmasq) -> Result<(), HostError> {
    files::folder(&context.layout.dnsmasq())?;
    let file = context.layout.dnsmasq_conf().with_extension("try");
    files::replace(&file, wanted.conf.as_bytes(), MODE)?;
    let path = file.to_string_lossy().into_owned();
    let tested = run_in(&context.namespace, "dnsmasq", &["--test", "-C", &path]).await;
    files::remove(&file)?;
    tested.map(|_| ())
}

/// Brings dnsmasq to its configuration: a change of guests is read while it runs, one of the network restarts it.
pub(super) async fn apply(context: &Context, compiled: &Compiled) -> Result<(), HostError> {
    let layout = &context.layout;
    let conf = layout.dnsmasq_conf();
    let Some(wanted) = &compiled.dnsmasq else {
        process::end(&context.namespace, &conf).await?;
        return files::remove_folder(&layout.dnsmasq());
    };
    files::folder(&layout.dnsmasq())?;
    let known: BTreeSet<(String, String)> =
        compiled.plan.dhcp.iter().flat_map(|d| &d.leases).map(|l| (l.mac.to_string(), l.ip.to_string())).collect();
    let record = Record::read(&layout.dnsmasq_process()).filter(Record::alive);
    let same = |r: &Record| r.conf == wanted.conf_digest;
    match record {
        Some(record) if same(&record) && record.data == wanted.data_digest => Ok(()),
        // It remembers the leases that it gave until it ends.
        Some(record) if same(&record) && !stale(context, &known) => {
            write_data(context, wanted)?;
            context.at("names-written")?;
            record.signal(Signal::HUP)?;
            Record { data: wanted.data_digest.clone(), ..record }.write(&layout.dnsmasq_process())
        }
        _ => restart(context, wanted, &known).await,
    }
}

fn write_data(context: &Context, wanted: &Dnsmasq) -> Result<(), HostError> {
    let layout = &context.layout;
    files::replace_if_other(&layout.dnsmasq_leases(), wanted.leases.as_bytes(), MODE)?;
    files::replace_if_other(&layout.dnsmasq_options(), wanted.options.as_bytes(), MODE)?;
    files::replace_if_other(&layout.dnsmasq_names(), wanted.names.as_bytes(), MODE)?;
    Ok(())
}

async fn restart(context: &Context, wanted: &Dnsmasq, known: &BTreeSet<(String, String)>) -> Result<(), HostError> {
    test(context, wanted).await?;
    let layout = &context.layout;
    let conf = layout.dnsmasq_conf();
    write_data(context, wanted)?;
    let former = files::read(&conf)?;
    files::replace_if_other(&conf, wanted.conf.as_bytes(), MODE)?;
    context.at("names-written")?;
    process::end(&context.namespace, &conf).await?;
    prune(context, known)?;
    context.at("names-stopped")?;
    let mut started = start(context).await;
    if started.is_err() {
        // One that a killed agent was starting may have come in between.
        process::end(&context.namespace, &conf).await?;
        started = start(context).await;
    }
    if let Err(error) = started {
        // Better the former names than none.
        if let Some(former) = former {
            files::replace_if_other(&conf, &former, MODE)?;
            let _ = start(context).await;
        }
        return Err(error);
    }
    context.at("names-started")?;
    let pid = process::pid_in(&layout.dnsmasq_pid());
    let record =
        pid.and_then(Record::of).ok_or_else(|| HostError::Failed("dnsmasq ended right after its start".into()))?;
    Record { conf: wanted.conf_digest.clone(), data: wanted.data_digest.clone(), ..record }
        .write(&layout.dnsmasq_process())
}

async fn start(context: &Context) -> Result<(), HostError> {
    let conf = context.layout.dnsmasq_conf().to_string_lossy().into_owned();
    run_in(&context.namespace, "dnsmasq", &["-C", &conf]).await.map(|_| ())
}

/// The lines of given leases: whether each is still somebody's.
fn given(context: &Context, known: &BTreeSet<(String, String)>) -> Vec<(String, bool)> {
    let text = std::fs::read_to_string(context.layout.dnsmasq_given()).unwrap_or_default();
    let ours = |line: &str| {
        let mut fields = line.split(' ').skip(1);
        match (fields.next(), fields.next()) {
            (Some(mac), Some(ip)) => known.contains(&(mac.to_ascii_lowercase(), ip.to_owned())),
            _ => false,
        }
    };
    text.lines().map(|line| (line.to_owned(), ours(line))).collect()
}

/// Whether dnsmasq has given a lease that is nobody's any more: it would refuse the address to its new owner.
fn stale(context: &Context, known: &BTreeSet<(String, String)>) -> bool {
    given(context, known).iter().any(|(_, ours)| !ours)
}

fn prune(context: &Context, known: &BTreeSet<(String, String)>) -> Result<(), HostError> {
    let lines = given(context, known);
    if lines.iter().all(|(_, ours)| *ours) {
        return Ok(());
    }
    let kept: String = lines.into_iter().filter(|(_, ours)| *ours).map(|(line, _)| line + "\n").collect();
    files::replace(&context.layout.dnsmasq_given(), kept.as_bytes(), MODE)
}
