//! Forks of canisters: what the copy has, that both go on independently, when there is none.
#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod common;

use common::{SCRIPT, Setup, TestSubnet, compute_arg, number, op, record_arg, script_with_heartbeat};
use cyclotron_ports::{Disk, Fault, SimDisk};
use cyclotron_subnet::{Checkpointer, Retention, Subnet};
use cyclotron_types::action::{ActionDone, ActionRefused, OperatorAction};
use cyclotron_types::ids::CanisterId;
use cyclotron_types::units::{Bytes, Cycles, Instructions};
use std::path::Path;
use std::sync::Arc;

/// What becomes of a fork in the next round.
fn try_fork(
    subnet: &mut TestSubnet,
    source: CanisterId,
    target: Option<CanisterId>,
) -> Result<CanisterId, ActionRefused> {
    subnet.actions.push(OperatorAction::ForkCanister { source, target });
    let view = subnet.round();
    subnet.subnet.check_cycles().unwrap();
    match view.actions[..] {
        [Ok(ActionDone::Forked { canister })] => Ok(canister),
        [Err(refused)] => Err(refused),
        ref other => panic!("{other:?}"),
    }
}

fn fork(subnet: &mut TestSubnet, source: CanisterId) -> CanisterId {
    try_fork(subnet, source, None).unwrap()
}

fn go(subnet: &mut TestSubnet, canister: CanisterId, steps: &[u8]) -> u64 {
    number(&subnet.call(canister, "go", steps).unwrap())
}

/// The counter, all of the heap, and all of the stable memory.
fn content(subnet: &TestSubnet, canister: CanisterId) -> (u64, Vec<u8>, Vec<u8>) {
    let get = |method| subnet.query(canister, method, &[]).unwrap();
    (number(&get("get")), get("heap"), get("stable"))
}

#[test]
fn a_fork_has_what_its_source_had_and_both_go_on_independently() {
    let mut subnet = TestSubnet::new(Setup::default());
    subnet.subnet.state_hash();
    let source = subnet.install_new(SCRIPT);
    go(&mut subnet, source, &[op(0, 77), op(3, 64), op(7, 0), vec![6]].concat());
    let (balance, memory) = (subnet.balance(source), subnet.subnet.statistics().memory);
    let copy = fork(&mut subnet, source);
    assert_eq!(content(&subnet, copy), content(&subnet, source));
    assert_eq!((subnet.balance(copy), subnet.balance(source)), (balance, balance));
    let taken = subnet.subnet.statistics().memory.0 - memory.0;
    assert!(taken > 3 * 65_536, "{taken} bytes: it counts in full");

    let before = content(&subnet, source);
    assert_eq!(go(&mut subnet, copy, &[op(0, 5), op(3, 64)].concat()), 82);
    assert_eq!(content(&subnet, source), before);
    assert_eq!(go(&mut subnet, source, &op(0, 1_000)), 1_077);
    assert_eq!(content(&subnet, copy).0, 82);
    assert_eq!(subnet.subnet.state_hash(), subnet.subnet.whole_state_hash());

    // One goes, the other stays.
    subnet.manage(Some(source), "stop_canister", record_arg(source)).unwrap();
    subnet.manage(Some(source), "delete_canister", record_arg(source)).unwrap();
    assert_eq!(go(&mut subnet, copy, &op(0, 1)), 83);
    subnet.subnet.check_cycles().unwrap();
}

#[test]
fn timers_and_heartbeats_of_a_fork_run() {
    let mut subnet = TestSubnet::new(Setup::default());
    let (timed, beating) = (subnet.install_new(SCRIPT), subnet.install_new(&script_with_heartbeat()));
    go(&mut subnet, timed, &op(5, 4_000_000_000));
    let copies = [fork(&mut subnet, timed), fork(&mut subnet, beating)];
    let before = copies.map(|copy| content(&subnet, copy).0);
    for _ in 0..6 {
        subnet.round();
    }
    assert_eq!([timed, copies[0]].map(|id| content(&subnet, id).0), [1_000; 2], "the timer of each, once");
    assert!(content(&subnet, copies[1]).0 >= before[1] + 6_000);
}

#[test]
fn a_stopped_canister_has_a_stopped_fork_under_the_id_that_was_asked_for() {
    let mut subnet = TestSubnet::new(Setup::default());
    let source = subnet.install_new(SCRIPT);
    subnet.manage(Some(source), "stop_canister", record_arg(source)).unwrap();
    let wanted = CanisterId::from_u64(4_711);
    assert_eq!(try_fork(&mut subnet, source, Some(wanted)), Ok(wanted));
    assert!(subnet.call(wanted, "go", &op(0, 1)).unwrap_err().contains("stopped"));
    subnet.manage(Some(wanted), "start_canister", record_arg(wanted)).unwrap();
    assert_eq!(go(&mut subnet, wanted, &op(0, 1)), 1);
    assert!(subnet.call(source, "go", &op(0, 1)).is_err());
}

/// Does the same to two subnets, and asks for a fork of `source` in one of them alone; that must be refused and leave no difference.
fn refused(
    setup: &Setup,
    target: Option<CanisterId>,
    prepare: impl Fn(&mut TestSubnet) -> CanisterId,
) -> (CanisterId, ActionRefused) {
    let [mut one, mut other] = [(); 2].map(|()| TestSubnet::new(setup.clone()));
    let source = prepare(&mut one);
    assert_eq!(prepare(&mut other), source);
    let said = try_fork(&mut one, source, target).expect_err("a refusal");
    other.round();
    assert_eq!(one.subnet.state_hash(), other.subnet.state_hash(), "{said}");
    assert_eq!(one.subnet.root(), other.subnet.root());
    (source, said)
}

#[test]
fn what_cannot_be_forked_is_refused_with_the_reason_and_nothing_changes() {
    let setup = Setup::default();
    let mut sliced = Setup::default();
    sliced.limits.message.slice = Instructions(200_000);
    let installed = |subnet: &mut TestSubnet| subnet.install_new(SCRIPT);

    let nobody = CanisterId::from_u64(999);
    assert_eq!(refused(&setup, None, |_| nobody).1, ActionRefused::NoSuchCanister(nobody));
    let taken = CanisterId::from_u64(0);
    assert_eq!(refused(&setup, Some(taken), installed).1, ActionRefused::IdTaken(taken));
    let foreign = CanisterId::from_u64(u64::MAX);
    assert_eq!(refused(&setup, Some(foreign), installed).1, ActionRefused::IdNotHosted(foreign));

    let (id, said) = refused(&sliced, None, |subnet| {
        let id = installed(subnet);
        subnet.send(id, Some(id), "go", op(4, 200_000));
        subnet.round();
        id
    });
    assert_eq!(said, ActionRefused::Busy(id));
    let (id, said) = refused(&sliced, None, |subnet| {
        let (id, other) = (installed(subnet), installed(subnet));
        let call = [&[1][..], other.as_slice(), &op(4, 200_000)].concat();
        subnet.send(id, Some(id), "go", call);
        subnet.round();
        id
    });
    assert_eq!(said, ActionRefused::OpenCalls { canister: id, serves: 1, made: 1 });
    // It waits for the canister that is called, which is in the middle of a long message.
    let (id, said) = refused(&sliced, None, |subnet| {
        let (id, other) = (installed(subnet), installed(subnet));
        let call = [&[1][..], other.as_slice(), &op(4, 200_000)].concat();
        subnet.send(id, Some(id), "go", call);
        subnet.round();
        subnet.send(CanisterId::MANAGEMENT, Some(id), "stop_canister", record_arg(id));
        subnet.round();
        id
    });
    assert_eq!(said, ActionRefused::OpenCalls { canister: id, serves: 1, made: 1 });
    let mut tiny = Setup::default();
    tiny.scheduling.round_instructions = Instructions(1);
    tiny.scheduling.message_overhead = Instructions(2);
    let (id, said) = refused(&tiny, None, |subnet| {
        let id = installed(subnet);
        for _ in 0..3 {
            subnet.send(id, Some(id), "go", op(0, 1));
        }
        subnet.round();
        id
    });
    assert_eq!(said, ActionRefused::MessagesWait(id));

    let mut small = Setup::default();
    small.limits.subnet_memory = Bytes(300_000);
    small.fees.gib_second = Cycles::ZERO;
    let (_, said) = refused(&small, None, installed);
    assert!(matches!(said, ActionRefused::OutOfMemory { required, available } if required > available), "{said}");
    let (_, said) = refused(&setup, None, |subnet| {
        let ids = [(); 3].map(|()| installed(subnet));
        for id in ids {
            subnet.actions.push(OperatorAction::AddCycles { canister: id, amount: Cycles(10_000_000_000_000_000) });
            subnet.manage(Some(id), "update_settings", compute_arg(id, 90)).unwrap();
        }
        ids[0]
    });
    assert_eq!(said, ActionRefused::OutOfCompute { required: 90, available: 29 });
}

#[test]
fn forks_and_their_sources_share_the_pages_of_a_checkpoint_and_come_back_from_the_next() {
    let disk = Arc::new(SimDisk::new(1));
    let folder = Path::new("/checkpoints");
    disk.create_directory(folder).unwrap();
    let mut checkpointer = Checkpointer::new(Arc::clone(&disk), folder).unwrap();
    let mut subnet = TestSubnet::new(Setup::default());
    let source = subnet.install_new(SCRIPT);
    let spread: Vec<u8> = (0..16).flat_map(|page| op(0, page << 12)).collect();
    go(&mut subnet, source, &spread);
    subnet.round_at_checkpoint();
    checkpointer.make(&mut subnet.subnet).unwrap();
    subnet.subnet.release_memory(10);
    assert_eq!(subnet.subnet.memory_taken(), Bytes::ZERO, "all of it is on the disk");
    let copies = [(); 3].map(|()| fork(&mut subnet, source));
    assert_eq!(subnet.subnet.memory_taken(), Bytes::ZERO, "forks take nothing and read nothing");
    let size = |disk: &SimDisk| -> usize {
        let names = disk.list(folder).unwrap();
        names.iter().map(|name| disk.read(&folder.join(name), u64::MAX).unwrap().bytes.len()).sum()
    };
    let before = size(&disk);
    for (n, copy) in (1..).zip(copies) {
        go(&mut subnet, copy, &op(0, n));
    }
    let contents = [source, copies[0], copies[1], copies[2]].map(|id| content(&subnet, id));
    subnet.round_at_checkpoint();
    checkpointer.make(&mut subnet.subnet).unwrap();
    let grown = size(&disk) - before;
    assert!(grown < 100_000, "{grown} bytes: three pages and records, not three memories");
    let (height, state) = (subnet.subnet.height(), subnet.subnet.state_hash());
    drop(subnet);

    let mut back = Subnet::new(TestSubnet::options(Setup { threads: 2, ..Setup::default() })).unwrap();
    Checkpointer::new(disk, folder).unwrap().restore(&mut back, height).unwrap();
    back.check_cycles().unwrap();
    assert_eq!(back.state_hash(), state);
    let mut subnet = TestSubnet::new(Setup::default());
    // Ids of messages are counted, and the statuses of those before are still there.
    (subnet.now, subnet.sent) = (back.time(), 1_000);
    subnet.subnet = back;
    for (id, before) in [source, copies[0], copies[1], copies[2]].into_iter().zip(contents) {
        assert_eq!(content(&subnet, id), before);
    }
    assert_eq!(go(&mut subnet, copies[2], &op(0, 10)), content(&subnet, source).0 + 13);
}

/// A source with a few pages in a file that the next checkpoint leaves, since the rest of it is used no more.
fn with_a_file_to_leave(disk: &Arc<SimDisk>) -> (TestSubnet, Checkpointer<SimDisk>, CanisterId) {
    let folder = Path::new("/checkpoints");
    disk.create_directory(folder).unwrap();
    let mut checkpointer = Checkpointer::new(Arc::clone(disk), folder).unwrap();
    checkpointer.retain(Retention { checkpoints: 1, ..Retention::default() });
    let mut subnet = TestSubnet::new(Setup::default());
    let (source, other) = (subnet.install_new(SCRIPT), subnet.install_new(SCRIPT));
    let spread: Vec<u8> = (0..16).flat_map(|page| op(0, page << 12)).collect();
    go(&mut subnet, source, &[op(0, 77), op(3, 64)].concat());
    go(&mut subnet, other, &[&spread[..], &op(3, 9)].concat());
    for n in 0..2 {
        subnet.round_at_checkpoint();
        checkpointer.make(&mut subnet.subnet).unwrap();
        if n == 0 {
            assert!(disk.list(folder).unwrap().contains(&"00000001.pages".to_owned()));
            go(&mut subnet, other, &[&spread[..], &op(3, 10)].concat());
        }
    }
    subnet.subnet.release_memory(10);
    (subnet, checkpointer, source)
}

#[test]
fn forks_made_while_a_checkpoint_is_written_keep_the_pages_that_it_moves() {
    let disk = Arc::new(SimDisk::new(1));
    let (mut subnet, mut checkpointer, source) = with_a_file_to_leave(&disk);
    let expected = content(&subnet, source);
    subnet.subnet.release_memory(10);
    let mut copies = vec![source];
    // Each is a fork of the one before, made while pages of that one are on their way to another file.
    for _ in 0..4 {
        subnet.round_at_checkpoint();
        checkpointer.begin(&mut subnet.subnet).unwrap();
        let copy = fork(&mut subnet, *copies.last().unwrap());
        checkpointer.finish(&mut subnet.subnet).unwrap().unwrap();
        copies.push(copy);
    }
    assert!(!disk.list(Path::new("/checkpoints")).unwrap().contains(&"00000001.pages".to_owned()), "it was left");
    for copy in copies {
        subnet.subnet.release_memory(10);
        assert_eq!(content(&subnet, copy), expected);
    }
}

#[test]
fn no_checkpoint_names_a_file_that_has_gone_though_one_before_it_failed() {
    let disk = Arc::new(SimDisk::new(1));
    let (mut subnet, mut checkpointer, source) = with_a_file_to_leave(&disk);
    let expected = content(&subnet, source);
    subnet.subnet.release_memory(10);
    subnet.round_at_checkpoint();
    checkpointer.begin(&mut subnet.subnet).unwrap();
    let copy = fork(&mut subnet, source);
    checkpointer.finish(&mut subnet.subnet).unwrap().unwrap();
    assert!(!disk.list(Path::new("/checkpoints")).unwrap().contains(&"00000001.pages".to_owned()), "it was left");
    subnet.round_at_checkpoint();
    // Behind the creation of the file of pages, and before anything is in it.
    disk.fail_after(4, Fault::Full);
    checkpointer.begin(&mut subnet.subnet).unwrap();
    checkpointer.finish(&mut subnet.subnet).unwrap().unwrap_err();
    subnet.round_at_checkpoint();
    checkpointer.make(&mut subnet.subnet).unwrap();
    let (height, state) = (subnet.subnet.height(), subnet.subnet.state_hash());
    drop((subnet, checkpointer));

    let mut back = Subnet::new(TestSubnet::options(Setup::default())).unwrap();
    Checkpointer::new(disk, Path::new("/checkpoints")).unwrap().restore(&mut back, height).unwrap();
    assert_eq!(back.state_hash(), state);
    let mut subnet = TestSubnet::new(Setup::default());
    subnet.subnet = back;
    assert_eq!(content(&subnet, copy), expected);
}
