//! Lists: which, and how their answers are checked.

use crate::ask;
use crate::load::{self, Outcome, Schedule};
use crate::machines::Vm;
use crate::report::{Figure, Part, Report};
use crate::server::Watch;
use crate::table::number;
use anyhow::{Context, Result, ensure};
use arcus::api_client::ApiClient;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// How lists are measured.
#[derive(Clone, Debug)]
pub struct Reads {
    /// For how long each.
    pub time: Duration,
    /// By how many clients, one run each, for the lists that the incumbent was measured with.
    pub compared: Vec<usize>,
    /// The same for the others.
    pub others: Vec<usize>,
    /// Requests a second of the open loop; absent: half of the most that clients reached; 0: none.
    pub rate: Option<f64>,
}

/// One list.
struct List {
    what: &'static str,
    command: &'static str,
    params: Vec<(&'static str, String)>,
    /// What the answer's array is called.
    key: &'static str,
    /// Rows that it has at least.
    least: usize,
    compared: bool,
}

impl List {
    fn new(what: &'static str, command: &'static str, key: &'static str, least: usize) -> List {
        List { what, command, params: Vec::new(), key, least, compared: false }
    }

    fn with(mut self, name: &'static str, value: &str) -> List {
        self.params.push((name, value.to_owned()));
        self
    }

    fn page(self, size: usize) -> List {
        let list = self.with("page", "1").with("pagesize", &size.to_string());
        List { least: list.least.min(size), ..list }
    }

    fn compared(self) -> List {
        List { compared: true, ..self }
    }
}

/// The lists that are measured beside `vms` machines of ours, of which `one` is asked for by itself.
fn all(vms: usize, networks: usize, one: Option<&Vm>) -> Vec<List> {
    let mut lists = vec![
        List::new("VMs, page of 20", "listVirtualMachines", "virtualmachine", vms)
            .with("listall", "true")
            .page(20)
            .compared(),
        List::new("zones", "listZones", "zone", 1).compared(),
        List::new("VMs, page of 500", "listVirtualMachines", "virtualmachine", vms).with("listall", "true").page(500),
    ];
    if let Some(vm) = one {
        lists.push(List::new("one VM by id", "listVirtualMachines", "virtualmachine", 1).with("id", &vm.id));
        let by_name = List::new("VMs by name", "listVirtualMachines", "virtualmachine", 1);
        lists.push(by_name.with("listall", "true").with("name", &vm.name));
    }
    lists.extend([
        List::new("volumes, page of 500", "listVolumes", "volume", vms).with("listall", "true").page(500),
        List::new("networks, page of 500", "listNetworks", "network", networks).with("listall", "true").page(500),
        List::new("events, page of 500", "listEvents", "event", vms.max(1)).with("listall", "true").page(500),
        List::new("hosts, page of 500", "listHosts", "host", 1).with("type", "Routing").page(500),
    ]);
    lists
}

/// What all good answers of a list have in common with one that was read whole. To read each would measure the client.
#[derive(Clone, Debug, PartialEq)]
struct Likeness {
    begin: Vec<u8>,
    least: usize,
}

impl Likeness {
    /// Reads an answer whole.
    fn of(body: &[u8], list: &List) -> Result<Likeness> {
        let answer: Value = serde_json::from_slice(body).with_context(|| list.command.to_owned())?;
        let inner = answer.as_object().and_then(|o| o.values().next()).context("an empty answer")?;
        let rows = inner.get(list.key).and_then(Value::as_array).map_or(0, Vec::len);
        ensure!(rows >= list.least, "{}: {rows} rows, there should be {}", list.what, list.least);
        // Up to the wrapper's end; a tenth may go, as names and times have no fixed length.
        let wrapper = body.iter().position(|b| *b == b':').unwrap_or(body.len());
        Ok(Likeness { begin: body.get(..wrapper).unwrap_or_default().to_vec(), least: body.len() - body.len() / 10 })
    }

    fn check(&self, body: &[u8]) -> Result<()> {
        ensure!(body.starts_with(&self.begin), "an answer of another kind");
        ensure!(body.len() >= self.least, "an answer of {} bytes, there should be {}", body.len(), self.least);
        Ok(())
    }
}

/// Measures each list.
///
/// # Errors
/// When the JSON file can't be written; requests that fail are counted.
pub async fn measure(
    api: &Arc<ApiClient>,
    reads: &Reads,
    vms: usize,
    networks: usize,
    one: Option<&Vm>,
    watch: &Watch,
    report: &mut Report,
) -> Result<()> {
    for list in all(vms, networks, one) {
        let (what, list) = (list.what, Arc::new(list));
        let first = request(api, &list).await.and_then(|body| Ok((Likeness::of(&body, &list)?, body.len())));
        let (like, bytes) = match first {
            Ok(first) => first,
            Err(e) => {
                report.tell(Figure::new(Part::Lists, what, "", vms).failed(1, vec![format!("{e:#}")]))?;
                continue;
            }
        };
        let like = Arc::new(like);
        let ask = {
            let (api, list) = (api.clone(), list.clone());
            move || {
                let (api, list, like) = (api.clone(), list.clone(), like.clone());
                async move { like.check(&request(&api, &list).await?) }
            }
        };
        let mut most = 0.0_f64;
        for clients in if list.compared { &reads.compared } else { &reads.others } {
            // Connections and caches are there before the clock runs.
            futures::future::join_all((0..*clients).map(|_| ask())).await;
            let cpu = watch.cpu();
            let outcome = load::closed_for(*clients, reads.time, ask.clone()).await?;
            most = most.max(outcome.rate());
            let load = format!("{clients} client{}", if *clients == 1 { "" } else { "s" });
            let figure = Figure::new(Part::Lists, what, &load, vms).of(&outcome, None).with("bytes", bytes as f64);
            report.tell(with_cpu(figure, &outcome, cpu, watch))?;
        }
        let rate = reads.rate.unwrap_or(most / 2.0);
        if rate > 0.0 {
            let outcome = load::open(Schedule::new(rate, reads.time), |_| ask()).await?;
            let load = if reads.rate.is_some() { "open loop" } else { "open loop at half of the most" };
            report.tell(Figure::new(Part::Lists, what, load, vms).of(&outcome, Some(rate)))?;
        }
    }
    Ok(())
}

/// Adds the processor time of server and database, which the request cost; only where we know their processes.
fn with_cpu(figure: Figure, outcome: &Outcome<()>, before: Option<f64>, watch: &Watch) -> Figure {
    let Some((before, after)) = before.zip(watch.cpu()) else { return figure };
    if outcome.sample.failed() > 0 || outcome.sample.done() == 0 {
        return figure;
    }
    let millis = (after - before) * 1000.0 / outcome.sample.done() as f64;
    let text = format!("{}, {} CPU", figure.text, number(millis));
    figure.with("cpu_ms", millis).with_text(text)
}

async fn request(api: &ApiClient, list: &List) -> Result<Vec<u8>> {
    let params: Vec<(&str, &str)> = list.params.iter().map(|(name, value)| (*name, value.as_str())).collect();
    ask::body(api, list.command, &params).await
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test that panics has failed
mod tests {
    use super::*;

    const TWO: &[u8] = br#"{"listzonesresponse":{"count":2,"zone":[{"id":"a"},{"id":"b"}]}}"#;

    fn zones(least: usize) -> List {
        List::new("zones", "listZones", "zone", least)
    }

    #[test]
    fn answers_are_like_the_first_one() {
        let like = Likeness::of(TWO, &zones(2)).unwrap();
        like.check(TWO).unwrap();
        like.check(br#"{"listzonesresponse":{"count":2,"zone":[{"id":"c"},{"id":"d"}]}}"#).unwrap();
        assert!(like.check(br#"{"listzonesresponse":{}}"#).is_err(), "rows are missing");
        assert!(
            like.check(br#"{"errorresponse":{"errorcode":530,"errortext":"a text that is long enough to pass"}}"#)
                .is_err()
        );
        assert!(like.check(b"").is_err());
    }

    #[test]
    fn a_first_answer_with_too_few_rows_is_refused() {
        assert!(Likeness::of(TWO, &zones(3)).unwrap_err().to_string().contains("2 rows"));
        assert!(Likeness::of(b"{}", &zones(0)).is_err());
        assert!(Likeness::of(b"<html>", &zones(0)).is_err());
    }

    #[test]
    fn pages_expect_no_more_rows_than_they_hold() {
        let lists = all(10_000, 10, None);
        assert!(lists.iter().filter(|l| l.command == "listVirtualMachines").all(|l| l.least <= 500));
        let vm = Vm { id: "i".into(), name: "n".into() };
        assert_eq!(all(0, 1, Some(&vm)).len(), lists.len() + 2);
    }
}
