//! Programs that are run and waited for.

use super::HostError;
use super::namespace::Namespace;
use std::process::Stdio;
use std::time::Duration;

/// No tool takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a program to its end and gives its output.
///
/// # Errors
/// It isn't there, doesn't end, or fails: then with what it said.
pub(crate) async fn run(program: &str, args: &[&str]) -> Result<String, HostError> {
    let child = tokio::process::Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => HostError::Refused(format!("this host has no program {program}")),
            _ => HostError::failed(program, error),
        })?;
    let ended = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    let output = match ended {
        Ok(output) => output.map_err(|e| HostError::failed(program, e))?,
        Err(_) => return Err(HostError::Failed(format!("{program} didn't end within {PATIENCE:?}"))),
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = [output.stderr, output.stdout].concat();
    let said = String::from_utf8_lossy(&said);
    let said: String = said.trim().chars().take(1000).collect();
    Err(HostError::Failed(format!("{program} {}: {said}", args.join(" "))))
}

/// Runs a program in a network namespace. Not by `ip netns exec`, which mounts /sys anew for each process.
///
/// # Errors
/// See [`run`].
pub(crate) async fn run_in(namespace: &Namespace, program: &str, args: &[&str]) -> Result<String, HostError> {
    let at = format!("--net={}", namespace.path().display());
    let mut all = vec![at.as_str(), "--", program];
    all.extend(args);
    run("nsenter", &all).await
}
