//! `arcus console`: the address of a virtual machine's console, for a browser on this machine. It is what 4.11's UI opens, signed
//! with the user's keys instead of a session.

use crate::api_client::ApiClient;
use crate::zone::{id, list, text};
use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long an address opens the console.
const VALID: Duration = Duration::from_secs(600);
const API: &str = "/client/api";
const CONSOLE: &str = "/client/console";

/// The flags of `arcus console`.
#[derive(Args, Clone, Debug)]
pub struct ConsoleArgs {
    /// The virtual machine's name or id.
    vm: String,
    /// The folder of a running `arcus dev`: its administrator looks, unless an endpoint with keys is named.
    #[arg(long, default_value = "data")]
    data_dir: PathBuf,
    /// The query API, `http://HOST:8080/client/api`.
    #[arg(long, env = "CLOUDSTACK_ENDPOINT", requires = "key", requires = "secret")]
    endpoint: Option<String>,
    /// The user's API key.
    #[arg(long, env = "CLOUDSTACK_KEY", hide_env_values = true)]
    key: Option<String>,
    /// The user's secret key; better in the environment than on a command line.
    #[arg(long, env = "CLOUDSTACK_SECRET", hide_env_values = true)]
    secret: Option<String>,
}

/// Where the API is, and who asks.
struct Access {
    endpoint: String,
    key: String,
    secret: String,
}

/// Prints the address; it opens the console for ten minutes.
///
/// # Errors
/// When the API can't be reached, or there isn't one machine of that name.
pub async fn run(args: ConsoleArgs) -> Result<()> {
    let access = match (args.endpoint, args.key, args.secret) {
        (Some(endpoint), Some(key), Some(secret)) => Access { endpoint, key, secret },
        _ => of_dev(&args.data_dir)?,
    };
    let api = ApiClient::new(&access.endpoint, &access.key, &access.secret);
    let vm = find(&api, &args.vm).await?;
    let until = store::now_micros() + i64::try_from(VALID.as_micros())?;
    let expires = gateway::moment(until);
    let params = [("cmd", "access"), ("vm", vm.as_str()), ("signatureVersion", "3"), ("expires", expires.as_str())];
    println!("{}?{}", page(&access.endpoint)?, api.signed("console", &params)?);
    Ok(())
}

/// What `arcus dev` wrote into its folder.
fn of_dev(dir: &Path) -> Result<Access> {
    let file = dir.join("dev.json");
    let shown = file.display();
    let bytes = std::fs::read(&file).with_context(|| {
        format!(
            "{shown}: is arcus dev running with this data folder? Else set CLOUDSTACK_ENDPOINT, CLOUDSTACK_KEY and \
             CLOUDSTACK_SECRET"
        )
    })?;
    let dev: Value = serde_json::from_slice(&bytes).with_context(|| shown.to_string())?;
    Ok(Access { endpoint: text(&dev, "endpoint"), key: text(&dev, "apikey"), secret: text(&dev, "secretkey") })
}

/// The machine's id.
async fn find(api: &ApiClient, wanted: &str) -> Result<String> {
    let all = list(api, "listVirtualMachines", "virtualmachine", &[("listall", "true")]).await?;
    let called = |vm: &&Value| text(vm, "id") == wanted || text(vm, "name") == wanted;
    let found: Vec<&Value> = all.iter().filter(called).collect();
    match found.as_slice() {
        [vm] => id(vm),
        [] => bail!("there is no virtual machine {wanted}"),
        several => bail!("{} virtual machines are called {wanted}: name one by its id", several.len()),
    }
}

/// The console's page of the installation whose API is there.
fn page(endpoint: &str) -> Result<String> {
    let root = endpoint.trim_end_matches('/').strip_suffix(API);
    Ok(format!("{}{CONSOLE}", root.with_context(|| format!("{endpoint} doesn't end with {API}"))?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)] // a test that can't go on has failed
mod tests {
    use super::*;

    #[test]
    fn the_page_is_beside_the_api() {
        assert_eq!(page("http://127.0.0.1:8080/client/api").unwrap(), "http://127.0.0.1:8080/client/console");
        assert_eq!(page("https://cloud.example.com/client/api/").unwrap(), "https://cloud.example.com/client/console");
        assert!(page("http://127.0.0.1:8080/api").unwrap_err().to_string().contains("/client/api"));
        let dir = tempfile::tempdir().unwrap();
        assert!(format!("{:#}", of_dev(dir.path()).err().unwrap()).contains("is arcus dev running"));
    }
}
