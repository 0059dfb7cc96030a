//! Delays and faults of simulated hosts: kept in the database, and given to every factory.

use crate::store::mocks::{self as rows, MockRow};
use crate::world::World;
use contract::ApiError;
use contract::api::Success;
use contract_agent::{Command, Mock, QueryMocks, SetMocks, command, outcome};
use contract_infra::{
    CleanupSimulatorMockRequest, ConfigureSimulatorRequest, QuerySimulatorMockRequest, SimulatorMock,
};
use rpc::Cx;
use std::collections::HashMap;
use std::time::Duration;

/// Longest that factories may take to answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// Longest delay: whatever waits longer has been given up by everybody.
const LONGEST_MILLIS: u64 = 24 * 3600 * 1000;

/// What happens, as `value` describes it: pairs `key:value` (or `key=value`), separated by `|`.
///
/// `wait:S` and `timeout:S` delay by seconds, `waitms:N` by milliseconds; `result:fail` answers with a failure,
/// `result:fault` does it and says nothing, `result:die` takes the host down. A lone `fault` means `result:fail`.
/// `state:frozen` (the host stands still), `state:noagent` (its agent is gone, its VMs go on) and `state:nolease` (it can't
/// read the leases of its VMs) are states of hosts: they last until the mock is removed, whatever its command and count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Effect {
    wait_millis: u32,
    fault: bool,
    no_answer: bool,
    host_dies: bool,
    frozen: bool,
    agent_gone: bool,
    lease_unreachable: bool,
    disabled: bool,
}

fn parse(value: &str) -> Result<Effect, ApiError> {
    let wrong = |pair: &str| {
        ApiError::param(format!(
            "{pair} is nothing that a simulated host can do: use wait:SECONDS, waitms:N, result:fail, result:fault, result:die, \
             state:frozen, state:noagent or state:nolease, separated by |"
        ))
    };
    let mut effect = Effect::default();
    for pair in value.split(['|', ';', ',']).map(str::trim).filter(|p| !p.is_empty()) {
        let (key, text) = pair.split_once([':', '=']).unwrap_or((pair, ""));
        let text = text.trim();
        let millis = |unit: u64| -> Result<u32, ApiError> {
            let n = text.parse::<u64>().map_err(|_| wrong(pair))?.saturating_mul(unit);
            if n > LONGEST_MILLIS {
                return Err(wrong(pair));
            }
            u32::try_from(n).map_err(|_| wrong(pair))
        };
        match (key.trim().to_ascii_lowercase().as_str(), text.to_ascii_lowercase().as_str()) {
            ("wait" | "timeout", _) => effect.wait_millis = millis(1000)?,
            ("waitms", _) => effect.wait_millis = millis(1)?,
            ("result", "fail") | ("fault", "" | "true") => effect.fault = true,
            ("result", "fault") | ("noanswer", "" | "true") => effect.no_answer = true,
            ("result", "die") | ("die" | "hostdies", "" | "true") => effect.host_dies = true,
            ("state", "frozen") => effect.frozen = true,
            ("state", "noagent") => effect.agent_gone = true,
            ("state", "nolease") => effect.lease_unreachable = true,
            ("result", "success" | "ok") | ("enabled", "true") => {}
            ("enabled", "false") => effect.disabled = true,
            _ => return Err(wrong(pair)),
        }
    }
    Ok(effect)
}

/// Makes simulated hosts slow or faulty.
pub async fn configure(world: &World, cx: &Cx, r: ConfigureSimulatorRequest) -> Result<SimulatorMock, ApiError> {
    parse(r.value())?;
    if r.count.is_some_and(|n| n < 0) {
        return Err(ApiError::param("count must be 0 or more"));
    }
    if r.json_response.as_deref().is_some_and(|j| !j.is_empty()) {
        // A host's answer can't be replaced by a text, so nobody may believe that it was.
        return Err(ApiError::refused_param("configureSimulator", "jsonresponse"));
    }
    let place = |param: &str| -> Result<Option<(i64, String)>, ApiError> {
        Ok(cx.refs.living(param)?.map(|e| (e.id, e.uuid.clone())))
    };
    let row = MockRow {
        id: world.node.db.next_id("simulator_mock").await?,
        zone: place("zoneid")?,
        pod: place("podid")?,
        cluster: place("clusterid")?,
        host: place("hostid")?,
        name: r.name().to_owned(),
        value: r.value().to_owned(),
        count: r.count.map(i64::from),
    };
    let mock = jobs::mutate!(world.node.db, cx.caller, "configure-simulator", |tx| {
        rows::insert(tx, &row).await?;
        Ok(message(&row, row.count))
    })
    .await?;
    push(world).await?;
    Ok(mock)
}

/// Shows what remains of one.
pub async fn query(world: &World, r: &QuerySimulatorMockRequest) -> Result<SimulatorMock, ApiError> {
    let id = r.id.ok_or_else(|| ApiError::param("Give the id of the mock"))?;
    let row = rows::find(&world.node.db, id).await?.ok_or_else(|| missing(id))?;
    let remaining = remaining(world).await?;
    let count = row.count.map(|n| remaining.get(&id).copied().unwrap_or(n));
    Ok(message(&row, count))
}

/// Ends one.
pub async fn cleanup(world: &World, cx: &Cx, r: &CleanupSimulatorMockRequest) -> Result<Success, ApiError> {
    let id = r.id.ok_or_else(|| ApiError::param("Give the id of the mock"))?;
    let done = jobs::mutate!(world.node.db, cx.caller, "cleanup-simulator-mock", |tx| {
        if !rows::remove(tx, id).await? {
            return Err(missing(id));
        }
        Ok(Success { success: true, ..Success::default() })
    })
    .await?;
    push(world).await?;
    Ok(done)
}

fn missing(id: i64) -> ApiError {
    ApiError::param(format!("There is no simulator mock with id {id}"))
}

/// Gives all delays and faults to all factories. With what remains of their counts: a count isn't begun anew.
pub async fn push(world: &World) -> Result<(), ApiError> {
    give(world, rows::all(&world.node.db).await?).await
}

/// As [`push`], where there are any.
pub async fn push_if_any(world: &World) -> Result<(), ApiError> {
    let all = rows::all(&world.node.db).await?;
    if all.is_empty() { Ok(()) } else { give(world, all).await }
}

async fn give(world: &World, all: Vec<MockRow>) -> Result<(), ApiError> {
    let remaining = remaining(world).await?;
    let mut mocks = Vec::new();
    for row in all {
        let effect = parse(&row.value)?;
        if effect.disabled {
            continue;
        }
        let count = row.count.map(|n| remaining.get(&row.id).copied().unwrap_or(n));
        mocks.push(Mock {
            id: row.id,
            zone_uuid: row.zone.map(|(_, uuid)| uuid),
            pod_uuid: row.pod.map(|(_, uuid)| uuid),
            cluster_uuid: row.cluster.map(|(_, uuid)| uuid),
            host_uuid: row.host.map(|(_, uuid)| uuid),
            command: row.name,
            wait_millis: effect.wait_millis,
            fault: effect.fault,
            no_answer: effect.no_answer,
            host_dies: effect.host_dies,
            remaining: count,
            frozen: effect.frozen,
            agent_gone: effect.agent_gone,
            lease_unreachable: effect.lease_unreachable,
        });
    }
    let command = Command { body: Some(command::Body::SetMocks(SetMocks { mocks })) };
    world.hub.on_factories(command, DEADLINE).await?;
    Ok(())
}

/// What remains of counts, by the mock's number: the least that any factory says.
async fn remaining(world: &World) -> Result<HashMap<i64, i64>, ApiError> {
    let command = Command { body: Some(command::Body::QueryMocks(QueryMocks {})) };
    let mut least: HashMap<i64, i64> = HashMap::new();
    for outcome in world.hub.on_factories(command, DEADLINE).await? {
        let Some(outcome::Body::Mocks(list)) = outcome.body else { continue };
        for mock in list.mocks {
            if let Some(n) = mock.remaining {
                least.entry(mock.id).and_modify(|known| *known = n.min(*known)).or_insert(n);
            }
        }
    }
    Ok(least)
}

fn message(row: &MockRow, count: Option<i64>) -> SimulatorMock {
    let number = |place: &Option<(i64, String)>| place.as_ref().map(|(id, _)| *id);
    SimulatorMock {
        id: Some(row.id),
        zone_id: number(&row.zone),
        pod_id: number(&row.pod),
        cluster_id: number(&row.cluster),
        host_id: number(&row.host),
        name: Some(row.name.clone()),
        count: count.and_then(|n| i32::try_from(n).ok()),
        ..SimulatorMock::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_4_11_writes_them() {
        assert_eq!(parse("wait:3").unwrap(), Effect { wait_millis: 3000, ..Effect::default() });
        assert_eq!(
            parse("wait:1|result:fail").unwrap(),
            Effect { wait_millis: 1000, fault: true, ..Effect::default() }
        );
        assert_eq!(parse("result:fault").unwrap(), Effect { no_answer: true, ..Effect::default() });
        assert_eq!(parse("fault").unwrap(), Effect { fault: true, ..Effect::default() });
        assert_eq!(
            parse("waitms=250;result=die").unwrap(),
            Effect { wait_millis: 250, host_dies: true, ..Effect::default() }
        );
        assert!(parse("wait:soon").is_err());
        assert!(parse("wait:999999999").is_err());
        assert!(parse("dance").is_err());
    }
}
