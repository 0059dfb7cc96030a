//! Wrong histories of each kind, each of which is found; and right ones, of which nothing is said.

use super::*;
use crate::aftermath::{JobRow, NetworkSeen, OnHost, OnPool, Shown, VmSeen, VolumeSeen};
use crate::history::{Answer, Event, Intent};
use serde_json::{Value, json};

const SECOND: u64 = 1_000_000;

/// A history and an aftermath, made by hand.
struct Tale {
    entries: Vec<Entry>,
    after: Aftermath,
    shown: Shown,
    now: u64,
    ops: u64,
}

fn reply(error: Option<Failure>) -> Answer {
    let status = error.as_ref().map_or(200, |e| u16::try_from(e.code).unwrap());
    Answer::Reply { status, error, job: None, job_status: None, result: None }
}

fn failure(code: i64) -> Failure {
    let cs = if code == 534 { 4380 } else { 4350 };
    Failure { code, cs, text: format!("text of {code}") }
}

fn ok(value: Value) -> Outcome {
    Outcome::Ok { value, job: None }
}

fn refused(code: i64) -> Outcome {
    Outcome::Refused { error: failure(code) }
}

fn unknown() -> Outcome {
    Outcome::Unknown { job: None, why: "no answer".into() }
}

impl Tale {
    /// A network with a running VM in it.
    fn begin() -> Tale {
        let after = Aftermath { quiet: true, ..Aftermath::default() };
        let mut tale = Tale { entries: Vec::new(), after, shown: Shown::default(), now: 0, ops: 0 };
        tale.does(Intent::CreateNetwork { network: "chaos-n".into() }, ok(Value::Null));
        tale.shown.networks.push(NetworkSeen { name: "chaos-n".into(), id: "n".into() });
        tale.deploys("chaos-v");
        tale
    }

    fn deploys(&mut self, vm: &str) {
        self.does(deploy(vm), ok(Value::Null));
        self.there(vm, "Running");
        self.shown.volumes.push(root_of(vm));
    }

    fn there(&mut self, vm: &str, state: &str) {
        let nics = vec![("n".into(), format!("10.1.1.{}", self.shown.vms.len() + 2))];
        self.shown.vms.push(VmSeen { name: vm.into(), id: format!("id-{vm}"), state: state.into(), nics });
        if state == "Running" {
            let on = OnHost { vm: format!("id-{vm}"), host: "h".into(), generation: 1 };
            self.after.should_run.push(on.clone());
            self.after.do_run.push(on);
        }
    }

    fn is_now(&mut self, vm: &str, state: &str) {
        self.shown.vms.iter_mut().filter(|v| v.name == vm).for_each(|v| v.state = state.into());
        if state != "Running" {
            self.after.should_run.retain(|v| v.vm != format!("id-{vm}"));
            self.after.do_run.retain(|v| v.vm != format!("id-{vm}"));
        }
    }

    fn vanishes(&mut self, vm: &str) {
        self.is_now(vm, "");
        self.shown.vms.retain(|v| v.name != vm);
        self.shown.volumes.retain(|v| !v.root || v.vm.as_deref() != Some(vm));
    }

    fn write(&mut self, event: Event) {
        self.now += 1000;
        self.entries.push(Entry { at: self.now, event });
    }

    fn invokes(&mut self, intent: Intent) -> u64 {
        self.ops += 1;
        let op = self.ops;
        let (account, command) = ("a".into(), format!("{intent:?}"));
        self.write(Event::Invoke { op, client: 0, account, command, params: BTreeMap::new(), key: None, intent });
        op
    }

    fn gets(&mut self, op: u64, poll: bool, answer: Answer) {
        let sent = self.now;
        self.write(Event::Attempt { op, endpoint: "g".into(), sent, poll, answer });
    }

    fn ends(&mut self, op: u64, outcome: Outcome) {
        if let Outcome::Ok { job: Some(job), .. } = &outcome {
            self.after.jobs.push(JobRow { id: job.clone(), state: "Done".into(), ..JobRow::default() });
        }
        if let Outcome::Failed { job, .. } = &outcome {
            self.after.jobs.push(JobRow { id: job.clone(), state: "Failed".into(), ..JobRow::default() });
        }
        self.write(Event::Done { op, outcome });
    }

    fn does(&mut self, intent: Intent, outcome: Outcome) {
        let op = self.invokes(intent);
        let answer = match &outcome {
            Outcome::Refused { error } => reply(Some(error.clone())),
            Outcome::Unknown { .. } => Answer::Lost,
            _ => reply(None),
        };
        self.gets(op, false, answer);
        self.ends(op, outcome);
    }

    fn hurt(&mut self) {
        self.write(Event::Fault { fault: 1, part: "gateway-1".into(), how: "kill".into() });
    }

    fn mended(&mut self) {
        self.write(Event::Mended { fault: 1 });
        self.now += AFTERGLOW + SECOND;
    }

    fn report(&self) -> Report {
        let mut after = self.after.clone();
        after.at = self.now + 1000;
        after.shown = BTreeMap::from([("g".to_owned(), self.shown.clone())]);
        check(&self.entries, &after)
    }

    #[track_caller]
    fn is_clean(&self) {
        assert_eq!(self.report().findings, Vec::new());
    }

    #[track_caller]
    fn is_found(&self, rule: &str) {
        let found = self.report().findings;
        assert!(!found.is_empty() && found.iter().all(|f| f.rule == rule), "{rule} expected: {found:#?}");
    }

    #[track_caller]
    fn has(&self, rule: &str) {
        let found = self.report().findings;
        assert!(found.iter().any(|f| f.rule == rule), "{rule} expected: {found:#?}");
    }
}

fn deploy(vm: &str) -> Intent {
    Intent::Deploy { vm: vm.into(), network: "chaos-n".into() }
}

fn root_of(vm: &str) -> VolumeSeen {
    let (name, id) = (format!("ROOT-{vm}"), format!("root-{vm}"));
    VolumeSeen { name, id, state: "Ready".into(), root: true, size: 1 << 30, vm: Some(vm.into()) }
}

fn stop() -> Intent {
    Intent::Stop { vm: "chaos-v".into() }
}

fn expunge() -> Intent {
    Intent::Destroy { vm: "chaos-v".into(), expunge: true }
}

fn see(state: &str) -> (Intent, Outcome) {
    let value = json!({"virtualmachine": [{"name": "chaos-v", "state": state}]});
    (Intent::SeeVm { vm: "chaos-v".into() }, ok(value))
}

#[test]
fn a_quiet_life_is_clean() {
    let mut tale = Tale::begin();
    tale.does(stop(), ok(Value::Null));
    tale.does(see("Stopped").0, see("Stopped").1);
    tale.does(Intent::Start { vm: "chaos-v".into() }, ok(Value::Null));
    tale.does(Intent::Start { vm: "chaos-v".into() }, refused(431));
    tale.does(Intent::Tag { vm: "chaos-v".into(), key: "k".into(), value: "v".into() }, ok(Value::Null));
    tale.shown.tags.push(("chaos-v".into(), "k".into(), "v".into()));
    tale.is_clean();
    tale.does(expunge(), ok(Value::Null));
    tale.vanishes("chaos-v");
    tale.shown.tags.clear();
    tale.does(see("").0, refused(431));
    tale.does(stop(), refused(431));
    tale.does(Intent::DeleteNetwork { network: "chaos-n".into() }, ok(Value::Null));
    tale.shown.networks.clear();
    tale.is_clean();
}

#[test]
fn an_acknowledged_effect_that_is_absent() {
    let mut tale = Tale::begin();
    tale.vanishes("chaos-v");
    tale.is_found("contradiction");
    let mut tale = Tale::begin();
    tale.does(stop(), ok(Value::Null));
    tale.is_found("contradiction");
}

#[test]
fn a_failed_effect_that_is_present() {
    let mut tale = Tale::begin();
    tale.hurt();
    let error = failure(534);
    tale.does(deploy("chaos-w"), Outcome::Failed { job: "j".into(), error });
    tale.is_clean(); // nothing left: fine
    tale.there("chaos-w", "Error");
    tale.shown.vms[1].nics.clear();
    tale.is_clean(); // as the API documents
    tale.is_now("chaos-w", "Running");
    tale.shown.vms[1].nics.push(("n".into(), "10.1.1.9".into()));
    tale.shown.volumes.push(root_of("chaos-w"));
    tale.is_found("contradiction");
}

#[test]
fn a_failed_deploy_that_leaves_an_address_or_a_volume() {
    let failed = |tale: &mut Tale| {
        tale.hurt();
        tale.does(deploy("chaos-w"), Outcome::Failed { job: "j".into(), error: failure(534) });
        tale.there("chaos-w", "Error");
    };
    let mut tale = Tale::begin();
    failed(&mut tale);
    tale.is_found("failed-leaves"); // the address
    let mut tale = Tale::begin();
    failed(&mut tale);
    tale.shown.vms[1].nics.clear();
    tale.shown.volumes.push(root_of("chaos-w"));
    tale.is_found("failed-leaves");
}

#[test]
fn unknown_is_all_or_nothing_and_never_twice() {
    let mut tale = Tale::begin();
    tale.hurt();
    tale.does(deploy("chaos-w"), unknown());
    tale.is_clean();
    tale.there("chaos-w", "Running");
    tale.has("root-disks"); // half of it
    tale.shown.volumes.push(root_of("chaos-w"));
    tale.is_clean();
    tale.there("chaos-w", "Running");
    tale.after.should_run.pop();
    tale.after.do_run.pop();
    tale.has("doubled");
}

#[test]
fn an_unknown_deploy_that_was_never_stopped_is_not_stopped() {
    let mut tale = Tale::begin();
    tale.hurt();
    tale.does(deploy("chaos-w"), unknown());
    tale.there("chaos-w", "Stopped");
    tale.shown.volumes.push(root_of("chaos-w"));
    tale.is_found("contradiction");
}

#[test]
fn a_look_that_misses_what_was_acknowledged() {
    let mut tale = Tale::begin();
    tale.does(see("").0, ok(json!({})));
    tale.is_found("contradiction");
    let mut tale = Tale::begin();
    tale.does(stop(), ok(Value::Null));
    tale.is_now("chaos-v", "Stopped");
    tale.does(see("Running").0, see("Running").1); // stale
    tale.is_found("contradiction");
    let mut tale = Tale::begin();
    tale.does(Intent::ListVms, ok(json!({"count": 0})));
    tale.is_found("contradiction");
}

#[test]
fn a_look_meanwhile_may_see_both() {
    for state in ["Running", "Stopping", "Stopped"] {
        let mut tale = Tale::begin();
        let op = tale.invokes(stop());
        tale.gets(op, false, reply(None));
        tale.does(see(state).0, see(state).1);
        tale.ends(op, ok(Value::Null));
        tale.is_now("chaos-v", "Stopped");
        tale.is_clean();
    }
    // But not one after the other.
    let mut tale = Tale::begin();
    let op = tale.invokes(stop());
    tale.does(see("Stopped").0, see("Stopped").1);
    tale.does(see("Running").0, see("Running").1);
    tale.ends(op, ok(Value::Null));
    tale.is_now("chaos-v", "Stopped");
    tale.is_found("contradiction");
}

#[test]
fn an_operation_on_what_is_gone_that_succeeds() {
    let mut tale = Tale::begin();
    tale.does(expunge(), ok(Value::Null));
    tale.vanishes("chaos-v");
    tale.does(stop(), ok(Value::Null));
    tale.is_found("contradiction");
}

#[test]
fn a_refusal_without_a_reason() {
    let mut tale = Tale::begin();
    tale.does(stop(), refused(431));
    tale.is_found("contradiction");
    let mut tale = Tale::begin();
    tale.does(Intent::DeleteNetwork { network: "chaos-n".into() }, refused(431)); // the VM is in it
    tale.is_clean();
    tale.does(expunge(), ok(Value::Null));
    tale.vanishes("chaos-v");
    tale.does(Intent::DeleteNetwork { network: "chaos-n".into() }, refused(431));
    tale.is_found("contradiction");
}

#[test]
fn a_network_that_is_deleted_under_a_machine() {
    let mut tale = Tale::begin();
    tale.does(Intent::DeleteNetwork { network: "chaos-n".into() }, ok(Value::Null));
    tale.shown.networks.clear();
    tale.is_found("contradiction");
}

#[test]
fn volumes_have_one_owner_and_their_size() {
    let volume = || "chaos-d".to_owned();
    let data = |size: i64, vm: Option<&str>| VolumeSeen {
        name: volume(),
        id: "d".into(),
        state: "Ready".into(),
        root: false,
        size: size << 30,
        vm: vm.map(str::to_owned),
    };
    let begin = || {
        let mut tale = Tale::begin();
        tale.does(Intent::CreateVolume { volume: volume(), size: 1 }, ok(Value::Null));
        tale.does(Intent::Attach { volume: volume(), vm: "chaos-v".into() }, ok(Value::Null));
        tale
    };
    let mut tale = begin();
    tale.shown.volumes.push(data(1, Some("chaos-v")));
    tale.is_clean();
    let mut tale = begin();
    tale.shown.volumes.push(data(1, None)); // the attachment is lost
    tale.is_found("contradiction");
    let mut tale = begin();
    tale.does(Intent::Resize { volume: volume(), size: 2 }, ok(Value::Null));
    tale.shown.volumes.push(data(1, Some("chaos-v"))); // the size is lost
    tale.is_found("contradiction");
    let mut tale = begin();
    tale.does(Intent::Attach { volume: volume(), vm: "chaos-v".into() }, ok(Value::Null)); // twice
    tale.shown.volumes.push(data(1, Some("chaos-v")));
    tale.is_found("contradiction");
    let mut tale = begin();
    tale.does(Intent::DeleteVolume { volume: volume() }, ok(Value::Null)); // while attached
    tale.is_found("contradiction");
    let mut tale = begin();
    tale.does(expunge(), ok(Value::Null));
    tale.vanishes("chaos-v");
    tale.shown.volumes.push(data(1, None)); // a data disk outlives its VM
    tale.is_clean();
}

#[test]
fn tags_that_are_lost() {
    let mut tale = Tale::begin();
    tale.does(Intent::Tag { vm: "chaos-v".into(), key: "k".into(), value: "v".into() }, ok(Value::Null));
    tale.is_found("contradiction");
}

#[test]
fn unavailable_only_while_something_is_hurt() {
    let answers = || [Answer::Lost, Answer::NoConnection, reply(Some(failure(534)))];
    let pages = || [502, 503, 504].map(|status| Answer::Garbled { status, body: "<html>".into() });
    for answer in answers().into_iter().chain(pages()) {
        let mut tale = Tale::begin();
        tale.hurt();
        let op = tale.invokes(Intent::Other);
        tale.gets(op, false, answer.clone());
        tale.ends(op, ok(Value::Null));
        tale.is_clean();
        tale.mended();
        let op = tale.invokes(Intent::Other);
        tale.gets(op, false, answer);
        tale.ends(op, ok(Value::Null));
        tale.is_found("unavailable-while-well");
    }
}

#[test]
fn a_job_that_fails_while_all_is_well() {
    let mut tale = Tale::begin();
    tale.does(stop(), Outcome::Failed { job: "j".into(), error: failure(534) });
    tale.is_found("failed-while-well");
}

#[test]
fn a_job_that_fails_long_after_all_was_mended() {
    for (waits, excused) in [(PATIENCE - SECOND, true), (PATIENCE + SECOND, false)] {
        let mut tale = Tale::begin();
        tale.hurt();
        let op = tale.invokes(Intent::Reboot { vm: "chaos-v".into() });
        tale.gets(op, false, reply(None));
        tale.write(Event::Mended { fault: 1 });
        tale.now += AFTERGLOW + waits;
        tale.ends(op, Outcome::Failed { job: "j".into(), error: failure(534) });
        if excused { tale.is_clean() } else { tale.is_found("failed-while-well") }
    }
}

#[test]
fn what_goes_well_after_the_last_fault_is_counted() {
    let mut tale = Tale::begin();
    tale.hurt();
    tale.does(Intent::Other, ok(Value::Null));
    tale.mended();
    tale.does(Intent::Other, ok(Value::Null));
    assert_eq!(tale.report().calm, 1);
}

#[test]
fn errors_that_are_never_right() {
    for code in [401, 429, 432, 531, 535] {
        let mut tale = Tale::begin();
        tale.hurt();
        tale.does(Intent::Other, refused(code));
        tale.is_found("wrong-error");
    }
    let mut tale = Tale::begin();
    tale.hurt();
    let text = "Internal error executing command, please contact your system administrator".to_owned();
    tale.does(Intent::Other, Outcome::Refused { error: Failure { code: 530, cs: 4250, text } });
    tale.is_found("internal-error");
}

#[test]
fn answers_that_are_none() {
    let mut tale = Tale::begin();
    tale.hurt();
    let op = tale.invokes(Intent::Other);
    tale.gets(op, false, Answer::Garbled { status: 200, body: "{\"listzonesresp".into() });
    tale.ends(op, ok(Value::Null));
    tale.is_found("garbled");
}

fn polled(status: i64, result: Option<u64>) -> Answer {
    Answer::Reply { status: 200, error: None, job: Some("j".into()), job_status: Some(status), result }
}

#[test]
fn jobs_that_are_forgotten_or_go_back() {
    let job = || Some("j".to_owned());
    let mut tale = Tale::begin();
    let op = tale.invokes(Intent::Reboot { vm: "chaos-v".into() });
    tale.gets(op, true, polled(0, None));
    tale.gets(op, true, reply(Some(failure(431))));
    tale.gets(op, true, polled(1, Some(7)));
    tale.ends(op, Outcome::Ok { value: Value::Null, job: job() });
    tale.is_found("job-forgotten");
    for second in [polled(0, None), polled(2, Some(7)), polled(1, Some(8))] {
        let mut tale = Tale::begin();
        let op = tale.invokes(Intent::Reboot { vm: "chaos-v".into() });
        tale.gets(op, true, polled(1, Some(7)));
        tale.gets(op, true, second);
        tale.ends(op, Outcome::Ok { value: Value::Null, job: job() });
        tale.is_found("job-went-back");
    }
}

#[test]
fn one_key_that_makes_two_jobs() {
    let accepted = |job: &str| Answer::Reply {
        status: 200,
        error: None,
        job: Some(job.to_owned()),
        job_status: None,
        result: None,
    };
    let mut tale = Tale::begin();
    let op = tale.invokes(Intent::Reboot { vm: "chaos-v".into() });
    tale.gets(op, false, accepted("a"));
    tale.gets(op, false, accepted("b"));
    tale.ends(op, Outcome::Ok { value: Value::Null, job: Some("a".into()) });
    tale.is_found("accepted-twice");
}

#[test]
fn jobs_that_do_not_end_or_end_otherwise() {
    for (state, rule) in [("Running", "job-stuck"), ("Waiting", "job-stuck"), ("Parked", "job-parked")] {
        let mut tale = Tale::begin();
        tale.after.jobs.push(JobRow { id: "j".into(), state: state.into(), ..JobRow::default() });
        tale.is_found(rule);
    }
    let told = |tale: &mut Tale| {
        tale.does(Intent::Reboot { vm: "chaos-v".into() }, Outcome::Ok { value: Value::Null, job: Some("j".into()) });
    };
    let mut tale = Tale::begin();
    told(&mut tale);
    tale.is_clean();
    tale.after.jobs[0].state = "Failed".into();
    tale.is_found("job-lied");
    tale.after.jobs.clear();
    tale.is_found("job-lost");
}

#[test]
fn a_client_that_gave_up_learns_the_end_from_the_job() {
    let mut tale = Tale::begin();
    tale.hurt();
    tale.does(stop(), Outcome::Unknown { job: Some("j".into()), why: String::new() });
    tale.after.jobs.push(JobRow { id: "j".into(), state: "Done".into(), ..JobRow::default() });
    tale.is_found("contradiction"); // it runs
    tale.is_now("chaos-v", "Stopped");
    tale.is_clean();
}

#[test]
fn hosts_that_run_something_else() {
    let mut tale = Tale::begin();
    tale.after.do_run.clear();
    tale.is_found("vm-not-run");
    let mut tale = Tale::begin();
    tale.after.do_run.push(OnHost { vm: "ghost".into(), host: "h".into(), generation: 1 });
    tale.is_found("vm-unasked");
    // On two hosts at once.
    let mut tale = Tale::begin();
    tale.after.do_run.push(OnHost { vm: "id-chaos-v".into(), host: "other".into(), generation: 1 });
    tale.is_found("vm-unasked");
}

#[test]
fn bytes_that_are_lost_or_left() {
    let on = || OnPool { volume: "d".into(), pool: "p".into() };
    let mut tale = Tale::begin();
    tale.after.should_lie.push(on());
    tale.is_found("bytes-lost");
    let mut tale = Tale::begin();
    tale.after.do_lie.push(on());
    tale.is_found("bytes-leaked");
}

#[test]
fn books_that_do_not_agree() {
    let mut tale = Tale::begin();
    tale.after.audit.push("claim-leaked: vm/1".into());
    tale.is_found("audit");
    let mut tale = Tale::begin();
    tale.after.quiet = false;
    tale.is_found("not-quiet");
    let mut tale = Tale::begin();
    tale.deploys("chaos-w");
    tale.shown.vms[1].nics = tale.shown.vms[0].nics.clone();
    tale.is_found("address-twice");
    let mut tale = Tale::begin();
    tale.is_now("chaos-v", "Stopping");
    tale.is_found("vm-stuck");
    let mut tale = Tale::begin();
    tale.shown.vms[0].nics.clear();
    tale.is_found("nic-lost");
    let mut tale = Tale::begin();
    tale.there("chaos-nobody", "Stopped");
    tale.shown.volumes.push(root_of("chaos-nobody"));
    tale.is_found("unasked");
}

#[test]
fn gateways_that_differ() {
    let mut tale = Tale::begin();
    tale.after.at = tale.now + 1000;
    let mut stale = tale.shown.clone();
    stale.vms.clear();
    tale.after.shown = BTreeMap::from([("g-1".to_owned(), tale.shown.clone()), ("g-2".to_owned(), stale)]);
    let found = check(&tale.entries, &tale.after).findings;
    assert!(found.iter().any(|f| f.rule == "gateways-differ"), "{found:?}");
}
