//! haproxy.

use super::Context;
use crate::haproxy::Haproxy;
use crate::host::HostError;
use crate::host::files;
use crate::host::process::{self, Record};
use crate::host::tools::run_in;
use rustix::process::Signal;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// How long a new configuration may take to be in force.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whom haproxy becomes once it listens, and its group: the user of the distribution's package, else nobody.
pub(super) fn user() -> Option<(String, String)> {
    let has = |file: &str, name: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.lines().any(|l| l.split(':').next() == Some(name))
    };
    let pairs = [("haproxy", "haproxy"), ("nobody", "nogroup"), ("nobody", "nobody")];
    let found = pairs.into_iter().find(|(user, group)| has("/etc/passwd", user) && has("/etc/group", group));
    found.map(|(user, group)| (user.to_owned(), group.to_owned()))
}

/// Brings haproxy to its configuration. Connections that are open stay with the process that has them.
pub(super) async fn apply(context: &Context, wanted: Option<&Haproxy>) -> Result<(), HostError> {
    let layout = &context.layout;
    let conf = layout.haproxy_conf();
    let Some(wanted) = wanted else {
        process::end(&context.namespace, &conf).await?;
        return files::remove_folder(&layout.haproxy());
    };
    let record = Record::read(&layout.haproxy_process()).filter(Record::alive);
    if record.is_some() && runs(&layout.haproxy_socket()).await.as_deref() == Some(&wanted.digest) {
        return Ok(());
    }
    files::folder(&layout.haproxy())?;
    let file = conf.with_extension("try");
    files::replace(&file, wanted.conf.as_bytes(), 0o600)?;
    let path = file.to_string_lossy().into_owned();
    let checked = run_in(&context.namespace, "haproxy", &["-c", "-f", &path]).await;
    files::remove(&file)?;
    checked?;
    let former = files::read(&conf)?;
    files::replace_if_other(&conf, wanted.conf.as_bytes(), 0o600)?;
    context.at("balancer-written")?;
    let done = load(context, record.as_ref(), &wanted.digest).await;
    if let (Err(HostError::Failed(_)), Some(former)) = (&done, former) {
        // The former worker goes on meanwhile; this makes it the lasting one again.
        files::replace_if_other(&conf, &former, 0o600)?;
        if let Some(record) = record {
            let _ = record.signal(Signal::USR2);
        }
    }
    done
}

async fn load(context: &Context, master: Option<&Record>, digest: &str) -> Result<(), HostError> {
    let layout = &context.layout;
    match master {
        Some(master) => master.signal(Signal::USR2)?,
        None => {
            let (conf, pid) = (layout.haproxy_conf(), layout.haproxy_pid());
            process::end(&context.namespace, &conf).await?;
            let (conf, pid_text) = (conf.to_string_lossy().into_owned(), pid.to_string_lossy().into_owned());
            let args = ["-D", "-W", "-f", &conf, "-p", &pid_text];
            if run_in(&context.namespace, "haproxy", &args).await.is_err() {
                // One that a killed agent was starting may have come in between.
                process::end(&context.namespace, &layout.haproxy_conf()).await?;
                run_in(&context.namespace, "haproxy", &args).await?;
            }
            context.at("balancer-started")?;
            let record = process::pid_in(&pid).and_then(Record::of);
            record
                .ok_or_else(|| HostError::Failed("haproxy ended right after its start".into()))?
                .write(&layout.haproxy_process())?;
        }
    }
    let start = tokio::time::Instant::now();
    let mut pause = Duration::from_millis(2);
    while runs(&layout.haproxy_socket()).await.as_deref() != Some(digest) {
        if start.elapsed() > PATIENCE {
            return Err(HostError::Failed(format!("haproxy didn't take its configuration within {PATIENCE:?}")));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(50));
    }
    Ok(())
}

/// The digest of the configuration that haproxy runs.
async fn runs(socket: &Path) -> Option<String> {
    let ask = async {
        let mut stream = tokio::net::UnixStream::connect(socket).await.ok()?;
        stream.write_all(b"show info\n").await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        text.lines().find_map(|l| Some(l.strip_prefix("node:")?.trim().to_owned()))
    };
    tokio::time::timeout(Duration::from_secs(2), ask).await.ok()?
}
