//! Guests that move between two hosts with a libvirtd and a QEMU each, while they run.

use crate::common::{SECOND, vm as vm_of};
use crate::world::{MIB, SECTOR, World, start, stop};
use contract::ApiError;
use contract_agent::{
    AttachDisk, BeginMigration, ConfirmMigration, FinishMigration, MigrationStep, Outcome, PerformMigration,
    PowerReason, PowerState, PrepareMigration, VmSpec, VmState, command, outcome,
};
use libvirt::{DefineFlags, DomainState, UndefineFlags, XmlFlags};

/// A guest that counts: `@`, and then again and again a number, by four letters (`a` is 0, `p` 15) and a dot, which it has
/// written to the second sector of its disk before it says it. `!` when it couldn't.
const COUNTER: &[u8] = &[
    0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, // xor ax, ax; mov ds, ax; mov es, ax; mov ss, ax
    0xbc, 0x00, 0x7c, // mov sp, 0x7c00
    0x88, 0x16, 0x00, 0x05, // mov [0x500], dl: the disk's number
    0xa3, 0x00, 0x06, // mov [0x600], ax: the count
    0xba, 0xf8, 0x03, 0xb0, b'@', 0xee, // mov dx, 0x3f8; mov al, '@'; out dx, al
    // again:
    0xbe, 0x03, 0x00, // mov si, 3
    0xfb, 0xf4, 0x4e, 0x75, 0xfb, // sti; hlt; dec si; jnz: three ticks
    0xff, 0x06, 0x00, 0x06, // inc word [0x600]
    0xb8, 0x01, 0x03, 0xb9, 0x02, 0x00, // mov ax, 0x301; mov cx, 2: write one sector, the second
    0x30, 0xf6, 0x8a, 0x16, 0x00, 0x05, // xor dh, dh; mov dl, [0x500]
    0xbb, 0x00, 0x06, 0xcd, 0x13, // mov bx, 0x600; int 0x13
    0xba, 0xf8, 0x03, 0x73, 0x03, 0xb0, b'!', 0xee, // mov dx, 0x3f8; jnc over; mov al, '!'; out dx, al
    // over:
    0x8b, 0x1e, 0x00, 0x06, 0xb9, 0x04, 0x00, // mov bx, [0x600]; mov cx, 4
    0xc1, 0xc3, 0x04, 0x88, 0xd8, 0x24, 0x0f, // rol bx, 4; mov al, bl; and al, 15
    0x04, b'a', 0xee, 0xe2, 0xf4, // add al, 'a'; out dx, al; loop
    0xb0, b'.', 0xee, 0xeb, 0xc3, // mov al, '.'; out dx, al; jmp again
];

/// A guest that writes to every page of 255 MiB, again and again: to send that at a megabyte a second takes minutes.
const BUSY: &[u8] = &[
    0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, // xor ax, ax; mov ds, ax; mov ss, ax; mov sp, 0x7c00
    0xba, 0xf8, 0x03, 0xb0, b'@', 0xee, 0xfa, // mov dx, 0x3f8; mov al, '@'; out dx, al; cli
    0x66, 0x0f, 0x01, 0x16, 0x45, 0x7c, // lgdt [0x7c45]: a segment of 4 GiB, which stays so
    0x0f, 0x20, 0xc0, 0x0c, 0x01, 0x0f, 0x22, 0xc0, // mov eax, cr0; or al, 1; mov cr0, eax
    0xbb, 0x08, 0x00, 0x8e, 0xc3, // mov bx, 8; mov es, bx
    0x24, 0xfe, 0x0f, 0x22, 0xc0, // and al, 0xfe; mov cr0, eax
    0x66, 0xbf, 0x00, 0x00, 0x10, 0x00, // mov edi, 0x100000
    0x26, 0x67, 0x66, 0xff, 0x07, // inc dword [es:edi]
    0x66, 0x81, 0xc7, 0x00, 0x10, 0x00, 0x00, // add edi, 0x1000: the next page
    0x66, 0x81, 0xff, 0x00, 0x00, 0xe0, 0x0f, // cmp edi, 0xfe00000
    0x72, 0xeb, 0xeb, 0xe3, // jb; jmp: all over
    0x0f, 0x00, 0x4b, 0x7c, 0x00, 0x00, // the table of segments: its length and place
    0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0x00, 0x00, 0x00, 0x92, 0xcf, 0x00, // none, and all memory
];

/// How fast [`BUSY`] is sent to arrive nevertheless.
const BUSY_MIB_PER_S: u64 = 256;

fn step_of(outcome: Outcome) -> MigrationStep {
    match outcome.body {
        Some(outcome::Body::Migration(step)) => step,
        other => panic!("{other:?}"),
    }
}

/// A guest on its way.
#[derive(Clone)]
struct Way {
    from: i64,
    to: i64,
    /// As it runs at the source.
    here: VmSpec,
    /// As it is to run at the destination.
    there: VmSpec,
    /// Longest standstill, ms; 0: the host's own.
    downtime: u32,
    /// How long the sending may take, ms; 0: as long as it takes.
    patience: u32,
}

impl Way {
    fn new(from: i64, to: i64, here: &VmSpec) -> Way {
        let there = VmSpec { generation: here.generation + 1, ..here.clone() };
        Way { from, to, here: here.clone(), there, downtime: 0, patience: 0 }
    }

    /// The next try.
    fn again(&self) -> Way {
        let there = VmSpec { generation: self.there.generation + 1, ..self.there.clone() };
        Way { there, ..self.clone() }
    }

    async fn begin(&self, world: &World) -> Result<MigrationStep, ApiError> {
        let order = BeginMigration { vm_uuid: self.here.uuid.clone(), generation: self.here.generation };
        world.execute(self.from, command::Body::BeginMigration(order)).await.map(step_of)
    }

    async fn prepare(&self, world: &World, begun: &MigrationStep) -> Result<MigrationStep, ApiError> {
        let order = PrepareMigration {
            vm: Some(self.there.clone()),
            cookie: begun.cookie.clone(),
            domain: begun.domain.clone(),
            take_cpu_as_is: false,
        };
        world.execute(self.to, command::Body::PrepareMigration(order)).await.map(step_of)
    }

    async fn perform(&self, world: &World, prepared: &MigrationStep, millis: u32) -> Result<MigrationStep, ApiError> {
        let order = PerformMigration {
            vm_uuid: self.here.uuid.clone(),
            generation: self.here.generation,
            cookie: prepared.cookie.clone(),
            uri: prepared.uri.clone(),
            report_after_millis: millis,
            max_downtime_millis: self.downtime,
            give_up_after_millis: self.patience,
        };
        world.execute(self.from, command::Body::PerformMigration(order)).await.map(step_of)
    }

    /// Until all is sent.
    async fn send(&self, world: &World, prepared: &MigrationStep) -> Result<MigrationStep, ApiError> {
        loop {
            let step = self.perform(world, prepared, 2000).await?;
            if step.sent {
                return Ok(step);
            }
        }
    }

    async fn finish(&self, world: &World, sent: &MigrationStep, cancelled: bool) -> Result<MigrationStep, ApiError> {
        let order = FinishMigration {
            vm_uuid: self.there.uuid.clone(),
            generation: self.there.generation,
            cookie: sent.cookie.clone(),
            cancelled,
        };
        world.execute(self.to, command::Body::FinishMigration(order)).await.map(step_of)
    }

    async fn confirm(&self, world: &World, cancelled: bool) -> Result<VmState, ApiError> {
        let order = ConfirmMigration {
            vm_uuid: self.here.uuid.clone(),
            generation: self.here.generation,
            cookie: Vec::new(),
            cancelled,
        };
        world.execute(self.from, command::Body::ConfirmMigration(order)).await.map(vm_of)
    }

    /// Takes all of it back, as the control plane does.
    async fn cancel(&self, world: &World) -> VmState {
        let thrown = self.finish(world, &MigrationStep::default(), true).await.unwrap();
        assert!(!thrown.sent);
        self.await_called_back(world).await
    }

    /// On a slow machine the lease may have to be read again first.
    async fn await_called_back(&self, world: &World) -> VmState {
        loop {
            match self.confirm(world, true).await {
                Ok(state) if state.power() == PowerState::On => return state,
                Ok(state) => assert_eq!(state.reason(), PowerReason::LeaseUnreadable, "{state:?}"),
                Err(error) => assert!(error.is_transient(), "{error}"),
            }
        }
    }

    /// To the point where only the start is left.
    async fn leave(&self, world: &World) {
        let begun = self.begin(world).await.unwrap();
        let prepared = self.prepare(world, &begun).await.unwrap();
        let sent = self.send(world, &prepared).await.unwrap();
        assert!(self.finish(world, &sent, false).await.unwrap().sent);
        self.depart(world).await;
    }

    async fn depart(&self, world: &World) {
        let ended = self.confirm(world, false).await.unwrap();
        assert_eq!((ended.power(), ended.generation), (PowerState::Off, self.here.generation));
    }

    async fn arrive(&self, world: &World) {
        world.started(self.to, &self.there, false).await;
        assert_eq!(world.domain(self.from, &self.here.uuid).await, None);
        assert_eq!(world.processes(&self.here.uuid), 1);
    }
}

/// The count that a guest has written to its disk.
fn on_disk(world: &World, spec: &VmSpec) -> u16 {
    let bytes = std::fs::read(world.pool_dir().join(&spec.disks[0].path)).unwrap();
    u16::from_le_bytes([bytes[512], bytes[513]])
}

/// The counts that were said; a guest that began anew, skipped or repeated one, or couldn't write fails the test.
fn counted(said: &str) -> u16 {
    let numbers = said.strip_prefix('@').unwrap_or_else(|| panic!("{said:?}"));
    let mut last = 0;
    // What is behind the last dot isn't whole yet.
    for number in numbers.split('.').rev().skip(1).collect::<Vec<_>>().into_iter().rev() {
        assert_eq!(number.len(), 4, "{said:?}");
        let value = number.bytes().fold(0, |n, digit| n << 4 | u16::from(digit - b'a'));
        assert_eq!(value, last + 1, "{said:?}");
        last = value;
    }
    last
}

/// A guest that counts on two hosts, and what it has said on them, in order.
struct Told {
    name: String,
    before: String,
    /// How much of each host's is in `before`.
    seen: [usize; 2],
}

impl Told {
    fn of(spec: &VmSpec) -> Told {
        Told { name: spec.instance_name.clone(), before: String::new(), seen: [0, 0] }
    }

    fn all(&self, world: &World, host: i64) -> String {
        let console = world.console(host, &self.name);
        format!("{}{}", self.before, &console[self.seen[usize::try_from(host - 1).unwrap()]..])
    }

    /// It says nothing more on this host.
    fn left(&mut self, world: &World, host: i64) {
        self.before = self.all(world, host);
        self.seen[usize::try_from(host - 1).unwrap()] = world.console(host, &self.name).len();
    }

    /// Waits until it has counted on, on this host.
    async fn goes_on(&self, world: &World, host: i64) {
        let begun = counted(&self.all(world, host));
        testkit::wait_until(|| async { counted(&self.all(world, host)) > begun + 2 }, 120 * SECOND).await;
    }
}

async fn counting(world: &World) -> (VmSpec, Told) {
    let spec = world.spec(COUNTER).await;
    world.running(1, &spec).await;
    let told = Told::of(&spec);
    told.goes_on(world, 1).await;
    (spec, told)
}

/// The sending of guests takes so much from now on.
async fn limit(world: &mut World, mib_per_s: Option<u64>) {
    world.mib_per_s = mib_per_s;
    world.kill_agent(0).await;
    world.start_agent(0).await;
}

/// A guest on the first host that is sent for minutes.
async fn slow(world: &mut World) -> VmSpec {
    limit(world, Some(1)).await;
    let mut spec = world.spec(BUSY).await;
    spec.memory_bytes = 256 * MIB;
    world.running(1, &spec).await;
    spec
}

async fn reported(world: &World, host: i64) -> Vec<(PowerState, PowerReason, i64)> {
    let report = world.inventory(host).await;
    report.vms.iter().map(|vm| (vm.power(), vm.reason(), vm.generation)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_moves_there_and_back_and_goes_on() {
    let Some(mut world) = World::with_short_leases("a_guest_moves_there_and_back_and_goes_on", 2).await else { return };
    let (spec, mut told) = counting(&world).await;
    let way = Way::new(1, 2, &spec);
    let begun = way.begin(&world).await.unwrap();
    let prepared = way.prepare(&world, &begun).await.unwrap();
    assert!(prepared.uri.starts_with("tcp://127.0.0.1:"), "{}", prepared.uri);
    assert_eq!(way.prepare(&world, &begun).await.unwrap(), prepared, "it waits already");
    assert_eq!(reported(&world, 2).await, [(PowerState::Paused, PowerReason::Waiting, 2)]);
    told.goes_on(&world, 1).await;
    let sent = way.send(&world, &prepared).await.unwrap();
    assert!(way.send(&world, &prepared).await.unwrap().sent, "the same order again");
    assert_eq!(reported(&world, 1).await, [(PowerState::Paused, PowerReason::Sent, 1)]);
    // Nothing may be done with it now but to go on with this.
    let volume = world.volume(1).await;
    let attach = AttachDisk { vm_uuid: spec.uuid.clone(), disk: Some(volume) };
    assert!(world.execute(1, command::Body::AttachDisk(attach)).await.unwrap_err().is_transient());
    assert!(world.execute(1, start(&spec, true)).await.unwrap_err().is_transient());
    assert!(way.finish(&world, &sent, false).await.unwrap().sent);
    assert!(way.finish(&world, &sent, false).await.unwrap().sent, "the same order again");
    assert_eq!(reported(&world, 2).await, [(PowerState::Paused, PowerReason::Waiting, 2)]);
    // The source has the lease as long as its copy is there.
    let held = world.execute(2, start(&way.there, false)).await.unwrap_err();
    assert!(held.full_text().contains(&world.hosts[0].uuid), "{held}");
    assert_eq!(world.claims(&spec.uuid), ["1"]);
    assert_eq!(world.domain(2, &spec.uuid).await.unwrap().1, DomainState::PAUSED);
    way.depart(&world).await;
    way.depart(&world).await;
    assert_eq!(world.claims(&spec.uuid), ["1", "1.free"]);
    told.left(&world, 1);
    way.arrive(&world).await;
    told.goes_on(&world, 2).await;
    assert!(on_disk(&world, &spec) >= counted(&told.all(&world, 2)));
    assert_eq!(reported(&world, 2).await, [(PowerState::On, PowerReason::Unspecified, 2)]);
    assert!(world.inventory(1).await.vms.is_empty());
    let (domain, _) = world.domain(2, &spec.uuid).await.unwrap();
    let xml = world.libvirt(2).await.xml(&domain, XmlFlags::none()).await.unwrap();
    assert!(xml.contains("generation=\"2\"") || xml.contains("generation='2'"), "{xml}");
    assert!(!xml.contains("waits="), "{xml}");
    // Whoever asks late hears what is so.
    assert!(way.finish(&world, &sent, false).await.unwrap().sent);
    assert!(way.finish(&world, &sent, true).await.is_err(), "it goes on there");
    // An agent that comes back finds it as any other.
    world.kill_agent(1).await;
    world.start_agent(1).await;
    world.started(2, &way.there, true).await;
    let state = world.vm(2, start(&way.there, true)).await;
    assert!(state.vnc.is_some_and(|socket| socket.ends_with(".sock")));
    told.goes_on(&world, 2).await;

    let back = Way::new(2, 1, &way.there);
    back.leave(&world).await;
    told.left(&world, 2);
    back.arrive(&world).await;
    told.goes_on(&world, 1).await;
    testkit::wait_until(|| async { world.claims(&spec.uuid) == ["3"] }, 60 * SECOND).await;
    assert_eq!(way.confirm(&world, false).await.unwrap().generation, 3, "it is another run by now");
    assert_eq!(world.processes(&spec.uuid), 1);
    world.vm(1, stop(&back.there, true)).await;
    world.end().await;
}

/// One that can't be booted from is no bar to the start from the disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cd_moves_with_its_guest() {
    let Some(world) = World::with_short_leases("a_cd_moves_with_its_guest", 2).await else { return };
    let cd = crate::cds::burned(&world, b"no file system").await;
    let spec = VmSpec { cd: Some(cd.clone()), ..world.spec(SECTOR).await };
    world.running(1, &spec).await;
    let way = Way::new(1, 2, &spec);
    way.leave(&world).await;
    way.arrive(&world).await;
    let (domain, _) = world.domain(2, &spec.uuid).await.unwrap();
    let xml = || async { world.libvirt(2).await.xml(&domain, XmlFlags::none()).await.unwrap() };
    let there = xml().await;
    assert!(there.contains(&cd.iso_uuid) && there.contains("device='cdrom'"), "{there}");
    world.execute(2, command::Body::ChangeCd(crate::cds::change(&way.there, None))).await.unwrap();
    let emptied = xml().await;
    assert!(!emptied.contains(&cd.iso_uuid), "{emptied}");
    world.vm(2, stop(&way.there, true)).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_move_leaves_the_guest_where_it_was() {
    let Some(world) = World::with_short_leases("a_cancelled_move_leaves_the_guest_where_it_was", 2).await else {
        return;
    };
    let (spec, told) = counting(&world).await;
    let mut way = Way::new(1, 2, &spec);
    for stage in 0..4 {
        let begun = way.begin(&world).await.unwrap();
        if stage > 0 {
            let prepared = way.prepare(&world, &begun).await.unwrap();
            if stage > 1 {
                let sent = way.send(&world, &prepared).await.unwrap();
                if stage > 2 {
                    assert!(way.finish(&world, &sent, false).await.unwrap().sent);
                }
            }
        }
        way.cancel(&world).await;
        way.cancel(&world).await;
        assert_eq!((world.domain(2, &spec.uuid).await, world.processes(&spec.uuid)), (None, 1), "stage {stage}");
        told.goes_on(&world, 1).await;
        assert_eq!(reported(&world, 1).await, [(PowerState::On, PowerReason::Unspecified, 1)]);
        assert!(world.inventory(2).await.vms.is_empty());
        let late = way.prepare(&world, &begun).await.unwrap_err();
        assert!(late.is_transient(), "none of this generation any more: {late}");
        let mistaken = way.confirm(&world, false).await.unwrap_err();
        assert!(mistaken.full_text().contains("goes on here"), "{mistaken}");
        way = way.again();
    }
    assert_eq!(world.claims(&spec.uuid), ["1"]);
    way.leave(&world).await;
    way.arrive(&world).await;
    // It was gone there: it can't be called back.
    assert!(!way.confirm(&world, true).await.unwrap_err().is_transient());
    world.vm(2, stop(&way.there, true)).await;
    world.end().await;
}

/// Where the agents are killed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    Prepared,
    Sent,
    Finished,
    Confirmed,
}

const STAGES: [Stage; 4] = [Stage::Prepared, Stage::Sent, Stage::Finished, Stage::Confirmed];

/// An agent is killed at each stage; then the orders go on as the control plane gives them.
async fn killed(world: &mut World, victim: usize) {
    for stage in STAGES {
        let (spec, mut told) = counting(world).await;
        let way = Way::new(1, 2, &spec);
        let begun = way.begin(world).await.unwrap();
        let prepared = way.prepare(world, &begun).await.unwrap();
        let mut sent = None;
        if stage != Stage::Prepared {
            sent = Some(way.send(world, &prepared).await.unwrap());
        }
        if matches!(stage, Stage::Finished | Stage::Confirmed) {
            way.finish(world, sent.as_ref().unwrap(), false).await.unwrap();
        }
        if stage == Stage::Confirmed {
            way.depart(world).await;
        }
        world.kill_agent(victim).await;
        world.start_agent(victim).await;
        let rest = async {
            let sent = match sent {
                // Whether it was answered or not: it is asked for again.
                Some(_) if stage != Stage::Confirmed => way.send(world, &prepared).await?,
                Some(sent) => sent,
                None => way.send(world, &prepared).await?,
            };
            way.finish(world, &sent, false).await
        };
        let went = rest.await;
        eprintln!("agent {victim} killed when {stage:?}: {:?}", went.as_ref().map(|step| step.sent));
        match &went {
            Ok(step) => {
                assert!(step.sent);
                way.depart(world).await;
                told.left(world, 1);
                way.arrive(world).await;
                told.goes_on(world, 2).await;
                world.vm(2, stop(&way.there, true)).await;
            }
            Err(error) => {
                assert!(matches!(stage, Stage::Prepared | Stage::Sent), "{stage:?}: {error}");
                way.cancel(world).await;
                assert_eq!((world.domain(2, &spec.uuid).await, world.processes(&spec.uuid)), (None, 1));
                told.goes_on(world, 1).await;
                // And it can be moved nevertheless.
                let again = way.again();
                again.leave(world).await;
                told.left(world, 1);
                again.arrive(world).await;
                told.goes_on(world, 2).await;
                world.vm(2, stop(&again.there, true)).await;
            }
        }
        assert_eq!(world.processes(&spec.uuid), 0);
        assert!(world.inventory(1).await.vms.is_empty() && world.inventory(2).await.vms.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sources_agent_may_die_at_any_stage() {
    let Some(mut world) = World::with_short_leases("the_sources_agent_may_die_at_any_stage", 2).await else { return };
    killed(&mut world, 0).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_destinations_agent_may_die_at_any_stage() {
    let Some(mut world) = World::with_short_leases("the_destinations_agent_may_die_at_any_stage", 2).await else {
        return;
    };
    killed(&mut world, 1).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sending_is_told_of_and_called_off() {
    let Some(mut world) = World::with_short_leases("a_sending_is_told_of_and_called_off", 2).await else {
        return;
    };
    let spec = slow(&mut world).await;
    let mut way = Way { downtime: 1, ..Way::new(1, 2, &spec) };
    let begun = way.begin(&world).await.unwrap();
    let prepared = way.prepare(&world, &begun).await.unwrap();
    let mut step = way.perform(&world, &prepared, 0).await.unwrap();
    while step.sent_bytes == 0 {
        assert!(!step.sent, "it is busy");
        step = way.perform(&world, &prepared, 50).await.unwrap();
    }
    assert!(step.total_bytes > step.sent_bytes, "{step:?}");
    assert_eq!(reported(&world, 1).await, [(PowerState::On, PowerReason::Unspecified, 1)]);
    // Called off in the middle.
    way.cancel(&world).await;
    assert_eq!(world.domain(1, &spec.uuid).await.unwrap().1, DomainState::RUNNING);
    assert!(way.send(&world, &prepared).await.is_err(), "nobody waits for it any more");
    way = way.again();

    // The agent dies in the middle: the one that comes after calls it off.
    let begun = way.begin(&world).await.unwrap();
    let prepared = way.prepare(&world, &begun).await.unwrap();
    assert!(!way.perform(&world, &prepared, 0).await.unwrap().sent);
    let (domain, _) = world.domain(1, &spec.uuid).await.unwrap();
    let libvirt = world.libvirt(1).await;
    let sends = || async { libvirt.job_info(&domain).await.unwrap().data_processed > 0 };
    testkit::wait_until(sends, 60 * SECOND).await;
    world.kill_agent(0).await;
    world.start_agent(0).await;
    world.await_domain(1, &spec.uuid, Some(DomainState::RUNNING)).await;
    way.cancel(&world).await;
    assert_eq!((world.domain(2, &spec.uuid).await, world.processes(&spec.uuid)), (None, 1));
    way = way.again();

    // As fast as the line is, all of it is sent.
    limit(&mut world, None).await;
    way.downtime = 2000;
    way.leave(&world).await;
    way.arrive(&world).await;
    world.vm(2, stop(&way.there, true)).await;
    assert_eq!(world.processes(&spec.uuid), 0);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_guest_arrives_or_goes_on_where_it_was() {
    let Some(mut world) = World::with_short_leases("a_busy_guest_arrives_or_goes_on_where_it_was", 2).await else {
        return;
    };
    let spec = slow(&mut world).await;
    // What it changes in a moment takes a minute to send.
    let way = Way { patience: 8_000, ..Way::new(1, 2, &spec) };
    let begun = way.begin(&world).await.unwrap();
    let prepared = way.prepare(&world, &begun).await.unwrap();
    let refused = way.send(&world, &prepared).await.unwrap_err();
    assert!(!refused.is_transient() && refused.full_text().contains("8 s were over"), "{refused}");
    // Nobody has said anything yet, and it goes on.
    assert_eq!(world.domain(1, &spec.uuid).await.unwrap().1, DomainState::RUNNING);
    assert_eq!(reported(&world, 1).await, [(PowerState::On, PowerReason::Unspecified, 1)]);
    assert_eq!(world.claims(&spec.uuid), ["1"]);
    way.cancel(&world).await;
    assert_eq!((world.domain(2, &spec.uuid).await, world.processes(&spec.uuid)), (None, 1));

    // Slower than it changes its memory, but it is slowed down, and may stand still for longer from time to time.
    limit(&mut world, Some(BUSY_MIB_PER_S)).await;
    let way = Way { patience: 240_000, ..way.again() };
    let began = std::time::Instant::now();
    way.leave(&world).await;
    eprintln!("a busy guest was sent within {:.1} s", began.elapsed().as_secs_f64());
    way.arrive(&world).await;
    world.vm(2, stop(&way.there, true)).await;
    assert_eq!(world.processes(&spec.uuid), 0);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_is_being_sent_can_be_stopped() {
    let Some(mut world) = World::with_short_leases("a_guest_that_is_being_sent_can_be_stopped", 2).await else {
        return;
    };
    let spec = slow(&mut world).await;
    let way = Way { downtime: 1, ..Way::new(1, 2, &spec) };
    let begun = way.begin(&world).await.unwrap();
    let prepared = way.prepare(&world, &begun).await.unwrap();
    assert!(!way.perform(&world, &prepared, 0).await.unwrap().sent);
    assert_eq!(world.vm(1, stop(&spec, true)).await.power(), PowerState::Off);
    // Its copy there ends with the line, or by the order.
    way.finish(&world, &MigrationStep::default(), true).await.unwrap();
    assert_eq!((world.domain(1, &spec.uuid).await, world.processes(&spec.uuid)), (None, 0));
    assert!(!way.confirm(&world, true).await.unwrap_err().is_transient(), "it is off");
    assert_eq!(world.claims(&spec.uuid), ["1", "1.free"]);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_nobody_wants_is_found_and_ended() {
    let Some(mut world) = World::with_short_leases("a_copy_that_nobody_wants_is_found_and_ended", 2).await else {
        return;
    };
    let (mut spec, mut told) = counting(&world).await;
    let way = Way::new(1, 2, &spec);
    let begun = way.begin(&world).await.unwrap();
    let prepared = way.prepare(&world, &begun).await.unwrap();
    let sent = way.send(&world, &prepared).await.unwrap();
    way.finish(&world, &sent, false).await.unwrap();
    // The destination goes away, and the VM is called back and started anew.
    world.kill_agent(1).await;
    way.await_called_back(&world).await;
    told.goes_on(&world, 1).await;
    world.vm(1, stop(&spec, true)).await;
    spec.generation = 3;
    world.started(1, &spec, true).await;
    assert_eq!(world.processes(&spec.uuid), 2, "one of them waits");
    world.start_agent(1).await;
    testkit::wait_until(|| async { world.processes(&spec.uuid) == 1 }, 120 * SECOND).await;
    testkit::wait_until(|| async { world.inventory(2).await.vms.is_empty() }, 60 * SECOND).await;
    assert!(world.execute(2, start(&way.there, true)).await.unwrap_err().is_transient(), "out of date");
    told.left(&world, 1);
    world.vm(1, stop(&spec, true)).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_whose_lease_cannot_be_read_stands_still_while_it_is_sent() {
    let test = "a_guest_whose_lease_cannot_be_read_stands_still_while_it_is_sent";
    let Some(mut world) = World::with_short_leases(test, 2).await else { return };
    let spec = slow(&mut world).await;
    let way = Way { downtime: 1, ..Way::new(1, 2, &spec) };
    let begun = way.begin(&world).await.unwrap();
    let prepared = way.prepare(&world, &begun).await.unwrap();
    assert!(!way.perform(&world, &prepared, 0).await.unwrap().sent);
    let (leases, aside) = (world.lease_dir(), world.pool_dir().join("aside"));
    std::fs::rename(&leases, &aside).unwrap();
    std::fs::write(&leases, b"").unwrap();
    world.await_news(1, &spec.uuid, PowerState::Paused, PowerReason::LeaseUnreadable).await;
    std::fs::remove_file(&leases).unwrap();
    std::fs::rename(&aside, &leases).unwrap();
    world.await_news(1, &spec.uuid, PowerState::On, PowerReason::Unspecified).await;
    let so_far = way.perform(&world, &prepared, 0).await.unwrap().sent_bytes;
    while way.perform(&world, &prepared, 100).await.unwrap().sent_bytes <= so_far {}
    way.cancel(&world).await;
    world.vm(1, stop(&spec, true)).await;
    assert_eq!(world.processes(&spec.uuid), 0);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_move_is_refused_and_stays() {
    let Some(world) = World::with_short_leases("what_cannot_move_is_refused_and_stays", 2).await else { return };
    let spec = world.spec(SECTOR).await;
    let way = Way::new(1, 2, &spec);
    assert!(!way.begin(&world).await.unwrap_err().is_transient(), "it doesn't run");
    world.running(1, &spec).await;
    let mut other = way.clone();
    other.here.generation = 7;
    assert!(other.begin(&world).await.unwrap_err().full_text().contains("generation 1"));
    let begun = way.begin(&world).await.unwrap();
    // Another VM than the one that is offered.
    let mut other = way.clone();
    other.there.disks.push(world.volume(1).await);
    let refused = other.prepare(&world, &begun).await.unwrap_err();
    assert!(refused.full_text().contains("which was ordered"), "{refused}");
    let mut other = way.clone();
    other.there.instance_name = "i-9-9-VM".into();
    assert!(other.prepare(&world, &begun).await.unwrap_err().full_text().contains("its name is"));
    // To itself.
    let mut other = way.clone();
    other.to = 1;
    assert!(other.prepare(&world, &begun).await.unwrap_err().full_text().contains("on this host already"));
    // libvirt refuses: its name is taken there.
    let foreign = format!(
        "<domain type='qemu'><name>{}</name><memory unit='MiB'>32</memory><vcpu>1</vcpu>
         <os><type arch='x86_64' machine='pc'>hvm</type></os></domain>",
        spec.instance_name
    );
    let libvirt = world.libvirt(2).await;
    let domain = libvirt.define(&foreign, DefineFlags::none()).await.unwrap();
    let refused = way.prepare(&world, &begun).await.unwrap_err();
    assert!(refused.full_text().contains("can't take the VM") && refused.full_text().contains("already"), "{refused}");
    libvirt.undefine(&domain, UndefineFlags::none()).await.unwrap();
    assert!(world.inventory(2).await.vms.is_empty());
    assert_eq!((world.processes(&spec.uuid), world.claims(&spec.uuid)), (1, vec!["1".to_owned()]));
    // Nobody waits where it is sent to.
    let prepared = way.prepare(&world, &begun).await.unwrap();
    let nowhere = MigrationStep { uri: "tcp://127.0.0.1:9".into(), ..prepared.clone() };
    let refused = way.send(&world, &nowhere).await.unwrap_err();
    assert!(refused.full_text().contains("can't be sent"), "{refused}");
    let nothing = MigrationStep { cookie: Vec::new(), ..prepared };
    assert_eq!(way.send(&world, &nothing).await.unwrap_err().code, 431);
    way.cancel(&world).await;
    let way = way.again();
    world.await_domain(1, &spec.uuid, Some(DomainState::RUNNING)).await;
    assert_eq!(reported(&world, 1).await, [(PowerState::On, PowerReason::Unspecified, 1)]);
    // Nothing of it is in the way.
    let begun = way.begin(&world).await.unwrap();
    let prepared = way.prepare(&world, &begun).await.unwrap();
    let sent = way.send(&world, &prepared).await.unwrap();
    way.finish(&world, &sent, false).await.unwrap();
    way.depart(&world).await;
    way.arrive(&world).await;
    assert_eq!(world.console(2, &spec.instance_name), "", "it didn't begin anew");
    // Stopped by its power button, as before.
    let stopped = world.vm(2, stop(&way.there, false)).await;
    assert_eq!(stopped.power(), PowerState::Off);
    world.end().await;
}
