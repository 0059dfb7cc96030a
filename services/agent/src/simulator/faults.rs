//! Delays and faults that tests ask for (`configureSimulator`).

use super::state::{Host, State};
use contract_agent::{Mock, SpawnHost};
use std::time::Duration;

/// What the faults of the moment do to an order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub wait: Duration,
    pub fault: bool,
    pub mute: bool,
    /// The fault that kills the host.
    pub dies: Option<i64>,
    /// A count went down: the list is to be written.
    pub counted: bool,
}

/// What the mocks say of an order with one of these names on a host. Each that applies counts down once.
pub(super) fn verdict(mocks: &mut [Mock], host: &SpawnHost, names: &[&str]) -> Verdict {
    let mut verdict = Verdict::default();
    for mock in mocks.iter_mut().filter(|mock| applies(mock, host, names)) {
        if let Some(remaining) = &mut mock.remaining {
            *remaining -= 1;
            verdict.counted = true;
        }
        verdict.wait += Duration::from_millis(mock.wait_millis.into());
        verdict.fault |= mock.fault;
        verdict.mute |= mock.no_answer;
        if mock.host_dies {
            verdict.dies = Some(mock.id);
        }
    }
    verdict
}

/// What state the faults of the moment put a host into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct States {
    pub frozen: bool,
    pub agent_gone: bool,
    pub lease_cut: bool,
}

pub(super) fn states(mocks: &[Mock], host: &SpawnHost) -> States {
    let mut states = States::default();
    for mock in mocks.iter().filter(|mock| in_scope(mock, host)) {
        states.frozen |= mock.frozen;
        states.agent_gone |= mock.agent_gone;
        states.lease_cut |= mock.lease_unreachable;
    }
    states
}

fn applies(mock: &Mock, host: &SpawnHost, names: &[&str]) -> bool {
    mock.remaining.is_none_or(|remaining| remaining > 0)
        && names.iter().any(|name| name.eq_ignore_ascii_case(&mock.command))
        && in_scope(mock, host)
}

fn in_scope(mock: &Mock, host: &SpawnHost) -> bool {
    let within = |scope: &Option<String>, uuid: &str| scope.as_deref().is_none_or(|wanted| wanted == uuid);
    within(&mock.zone_uuid, &host.zone_uuid)
        && within(&mock.pod_uuid, &host.pod_uuid)
        && within(&mock.cluster_uuid, &host.cluster_uuid)
        && within(&mock.host_uuid, &host.host_uuid)
}

/// Whether the sections that this 4.11 command brings are to fail on a host. Counts nothing down.
pub(super) fn section_fails(mocks: &[Mock], host: &SpawnHost, name: &str) -> bool {
    mocks.iter().any(|mock| mock.fault && applies(mock, host, &[name]))
}

/// Switches on the hosts whose fatal fault is gone from the list. The ones that boot.
pub(super) fn revive(state: &mut State) -> Vec<String> {
    let State { hosts, mocks, .. } = state;
    let is_over = |host: &Host| {
        host.dead && host.killed_by != 0 && !mocks.iter().any(|mock| mock.id == host.killed_by && mock.host_dies)
    };
    let mut booted = Vec::new();
    for (uuid, host) in hosts.iter_mut().filter(|(_, host)| is_over(host)) {
        boot(host);
        booted.push(uuid.clone());
    }
    booted
}

/// A dead host boots: nothing runs on it.
pub(super) fn boot(host: &mut Host) {
    host.dead = false;
    host.killed_by = 0;
    host.silent = false;
    host.boot_id = uuid::Uuid::new_v4().to_string();
    host.lose_guests();
    host.routers.clear();
    host.dirty = true;
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)] // a test that panics has failed
mod tests {
    use super::*;

    #[test]
    fn mocks_apply_in_their_scope_until_they_are_used_up() {
        let host = SpawnHost { host_uuid: "h1".into(), zone_uuid: "z".into(), ..SpawnHost::default() };
        let mut mocks = vec![
            Mock { id: 1, command: "StartCommand".into(), wait_millis: 20, remaining: Some(1), ..Mock::default() },
            Mock { id: 2, command: "startvm".into(), fault: true, host_uuid: Some("h2".into()), ..Mock::default() },
            Mock { id: 3, command: "StartVm".into(), wait_millis: 5, zone_uuid: Some("z".into()), ..Mock::default() },
        ];
        let names = ["StartVm", "StartCommand"];
        let first = verdict(&mut mocks, &host, &names);
        assert_eq!(first, Verdict { wait: Duration::from_millis(25), counted: true, ..Verdict::default() });
        let second = verdict(&mut mocks, &host, &names);
        assert_eq!(second, Verdict { wait: Duration::from_millis(5), ..Verdict::default() });
        assert_eq!(verdict(&mut mocks, &host, &["StopCommand"]), Verdict::default());
    }
}
