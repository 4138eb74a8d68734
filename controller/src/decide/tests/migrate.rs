//! A migration from a server outside of the cluster, step by step, everything that calls it off, and what can lead meanwhile and after it.

use super::*;
use crate::operations::{Judgement, judge};
use crate::view::{Ask, Migration, MigrationPlan, Step};

const THEIRS: &str = "oooo";
const PRESENT: &str = "0000000004-20261124T000100Z-00000000000000000100";

fn origin() -> Origin {
    Origin { address: "o:6379".parse().unwrap(), username: None, password: None }
}

fn operation(change: impl FnOnce(&mut Migration)) -> Operation {
    let mut migration = Migration {
        origin: origin(),
        follower: 2,
        alone: false,
        cut_over: false,
        cancelled: None,
        saved: None,
        door: None,
        called_off: None,
    };
    change(&mut migration);
    Operation {
        id: "o".into(),
        kind: OperationKind::Migrate(migration),
        owner: "me".into(),
        epoch: 4,
        step: "begun".into(),
        started_ms: 0,
        deadline_ms: 1_000_000_000,
        outcome: None,
        cause: String::new(),
        steps: Vec::new(),
    }
}

fn saved(m: &mut Migration) {
    m.cut_over = true;
    m.saved = Some(PRESENT.parse().unwrap());
}

fn ready(m: &mut Migration) {
    saved(m);
    m.door = Some(Door { min_replicas_to_write: 0, min_replicas_max_lag: 10 });
}

fn over(m: &mut Migration) {
    ready(m);
    m.called_off = Some("because".into());
}

fn begun(change: impl FnOnce(&mut Migration)) -> Case {
    Case::stable().seen(|s| s.operation = Some(operation(change)))
}

fn at(offset: u64) -> Position {
    Position { replid: THEIRS.into(), offset }
}

/// The server of an instance follows the origin, which stands at 500.
fn follows(s: &mut State) {
    (s.assigned_epoch, s.serving, s.fenced_epoch, s.role) = (0, false, None, Role::Replica);
    let redis = s.redis.as_mut().unwrap();
    (redis.run_id, redis.source, redis.started_epoch) = ("run-2b".into(), "origin:o:6379".into(), 4);
    (redis.replid, redis.offset, redis.open, redis.link) = (THEIRS.into(), 500, false, Some(true));
    redis.following = Some("o:6379".parse().unwrap());
    s.origin = Some(OriginState {
        request_id: "o".into(),
        address: origin().address,
        since_ms: 0,
        position: Some(at(500)),
        door: Some(Door { min_replicas_to_write: 0, min_replicas_max_lag: 10 }),
        problem: None,
        held: None,
        not_closed: None,
        opened: false,
    });
}

/// Instance 2 follows the origin, and has left the list of members.
fn following(change: impl FnOnce(&mut Migration)) -> Case {
    begun(change).record(|r| r.known_replicas.retain(|m| m.instance != 2)).state(2, follows)
}

/// Epoch 5 has begun for the cut-over; the master is fenced, and everybody else is cut off.
fn cut(change: impl FnOnce(&mut Migration)) -> Case {
    let fenced = Some(Evidence::Fenced { run_id: "run-0".into(), epoch: 5 });
    let case = following(change).deposing().record(|r| r.evidence = fenced).cut(0).cut(1).state(2, |s| s.epoch = 5);
    let step = |name: &str| Step { name: name.into(), at_ms: 0 };
    case.seen(|s| s.operation.as_mut().unwrap().steps = vec![step("cut-over"), step("deposing"), step("saved")])
}

/// The origin refuses writes, and instance 2 holds everything and is cut off from it.
fn held(s: &mut State) {
    s.fenced_epoch = Some(5);
    s.redis.as_mut().unwrap().link = Some(false);
    s.origin.as_mut().unwrap().held = Some(at(500));
}

fn noted(case: &Case) -> Operation {
    let plan = case.plan();
    let found = plan.actions.iter().find_map(|p| match &p.action {
        Action::SetOperation { operation } => Some(operation.as_ref().clone()),
        Action::CommitRecord { operation: Some(operation), .. } => Some(operation.as_ref().clone()),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("{plan:#?}"))
}

fn migration(operation: &Operation) -> &Migration {
    match &operation.kind {
        OperationKind::Migrate(migration) => migration,
        other => panic!("{other:?}"),
    }
}

fn outcome(case: &Case) -> String {
    noted(case).outcome.unwrap_or_else(|| panic!("{:#?}", case.plan()))
}

#[test]
fn a_replica_is_lent_to_the_origin_and_the_master_serves_on() {
    let follow = Order::FollowOrigin { request_id: "o".into(), origin: origin() };
    assert_eq!(orders(&begun(|_| {}).plan()), [(2, follow.clone())]);
    assert_eq!(orders(&begun(|_| {}).state(2, |s| s.redis = None).plan()), [(2, follow.clone())], "its server died");
    assert_eq!(following(|_| {}).actions(), Vec::<String>::new(), "it is not told to follow the master");
    let other = following(|_| {}).state(2, |s| s.origin.as_mut().unwrap().request_id = "before".into());
    assert_eq!(orders(&other.plan()), [(2, follow.clone())], "what was followed for another migration counts for none");
    let strayed = following(|_| {}).state(2, |s| s.redis.as_mut().unwrap().following = Some("127.0.0.1:1".parse().unwrap()));
    assert_eq!(orders(&strayed.plan()), [(2, follow)], "it follows on");
    assert!(begun(|_| {}).silent(2).reasons().contains(&Reason::AgentSilent), "it is waited for");
}

#[test]
fn the_cut_over_deposes_only_when_the_follower_is_linked() {
    let plan = following(|m| m.cut_over = true).plan();
    assert_eq!((committed(&plan).epoch, committed(&plan).phase), (5, Phase::Deposing));
    assert_eq!(committed(&plan).restored, None, "there is a way back");
    let unlinked = following(|m| m.cut_over = true).state(2, |s| s.redis.as_mut().unwrap().link = Some(false));
    assert!(outcome(&unlinked).contains("lost its link"));
}

#[test]
fn the_present_data_is_saved_before_the_origin_is_touched() {
    let how = agent::snapshot::How::Dump;
    let case = || cut(|m| m.cut_over = true);
    assert_eq!(orders(&case().plan()), [(0, Order::Backup { request_id: "o".into(), how })], "the follower is not cut off");
    let done = case().state(0, |s| {
        s.uploads.last_request_id = Some("o".into());
        s.uploads.last_request_snapshot = Some(PRESENT.parse().unwrap());
    });
    assert_eq!(migration(&noted(&done)).saved, Some(PRESENT.parse().unwrap()));
    assert_eq!(migration(&noted(&cut(saved))).door, Some(Door { min_replicas_to_write: 0, min_replicas_max_lag: 10 }));
    let was = Door { min_replicas_to_write: 0, min_replicas_max_lag: 10 };
    let close = Order::CloseOrigin { request_id: "o".into(), origin: origin(), was, within_ms: 5000 };
    assert_eq!(orders(&cut(ready).plan()), [(2, close)], "its settings are noted first");
}

#[test]
fn what_holds_everything_is_named_and_replaces_what_was_before() {
    for acks in [0, 1] {
        let plan = cut(ready).state(2, held).record(|r| r.durability.acks = acks).plan();
        let next = committed(&plan);
        assert_eq!((next.phase, next.master.as_ref().map(|m| m.run_id.as_str())), (Phase::Promoting, Some("run-2b")));
        assert_eq!(next.restored.as_ref().map(|r| r.epoch), Some(5));
        assert_eq!(next.histories[0].to, Some(0), "nothing of it is shared");
        assert_eq!((next.histories[1].replid.as_str(), next.histories[1].epoch), (THEIRS, 5));
        let entry = plan.actions.iter().find_map(|p| match &p.action {
            Action::CommitRecord { history: Some(HistoryChange::Add(entry)), .. } => Some(entry.kind.clone()),
            _ => None,
        });
        assert_eq!(entry.as_deref(), Some("migrate"));
    }
    for behind in [
        (|s| s.fenced_epoch = None) as fn(&mut State),
        |s| s.redis.as_mut().unwrap().offset = 499,
        |s| s.redis.as_mut().unwrap().answering = false,
    ] {
        let plan = cut(ready).state(2, held).state(2, behind).plan();
        assert!(!plan.actions.iter().any(|p| matches!(p.action, Action::CommitRecord { .. })), "{plan:#?}");
    }
}

#[test]
fn before_the_cut_over_whatever_fails_leaves_the_master_in_office() {
    let told = |case: Case| {
        assert!(!case.plan().actions.iter().any(|p| matches!(p.action, Action::CommitRecord { .. })));
        outcome(&case)
    };
    let by = told(following(|m| m.cancelled = Some("ann".into())));
    assert_eq!(by, "done: ann cancelled it. The present data stays");
    assert!(told(following(|_| {}).state(0, |s| s.stopping = true)).contains("the master, instance 0, was asked to end"));
    assert!(told(following(|_| {}).state(2, |s| s.stopping = true)).contains("asked to end"));
    assert!(told(following(|_| {}).state(2, |s| s.cannot_lead = Some("no module".into()))).contains("no module"));
    assert!(told(following(|_| {}).seen(|s| s.wall_ms = 1_000_000_001)).contains("took too long"));
    let deaths = following(|_| {}).state(2, |s| {
        s.deaths = (0..6).map(|n| Death { run_id: n.to_string(), proof: String::new(), at_ms: 2 }).collect();
    });
    assert!(told(deaths).contains("died 5 times"));
    let ended = following(|_| {}).seen(|s| s.operation.as_mut().unwrap().outcome = Some("failed: x".into()));
    assert_eq!(orders(&ended.plan()), [(2, Order::Stop)], "it makes room for a replica");
    assert_eq!(migration(&noted(&following(|m| m.cancelled = Some("ann".into())))).origin.password, None);
}

#[test]
fn in_the_cut_over_whatever_fails_before_the_origin_is_touched_ends_it() {
    let failed = |s: &mut State| s.uploads.failed_request = Some(("o".into(), "no memory".into()));
    let case = cut(|m| m.cut_over = true).state(0, failed);
    assert!(outcome(&case).contains("could not be saved: no memory. The present data stays"));
    let lost = cut(|m| m.cut_over = true).state(0, |s| s.redis = None);
    assert!(outcome(&lost).contains("the master was lost before its data was saved"));
    assert!(outcome(&cut(saved).state(2, |s| s.redis = None)).contains("is gone"));
    assert!(outcome(&cut(saved).seen(|s| s.wall_ms = 20_001)).contains("did not come in time"));
    let over = cut(|m| m.cut_over = true).seen(|s| s.operation.as_mut().unwrap().outcome = Some("failed: x".into()));
    assert_eq!(committed(&over.plan()).master.as_ref().map(|m| m.instance), Some(0), "the present data leads again");
}

#[test]
fn once_the_origin_may_be_closed_it_is_called_off_with_the_record_and_then_opened() {
    let cases = [
        ("could not be had", cut(ready).state(2, |s| s.origin.as_mut().unwrap().not_closed = Some("no answer".into()))),
        ("is gone", cut(ready).state(2, |s| s.redis = None)),
        ("in time", cut(ready).seen(|s| s.wall_ms = 20_001)),
    ];
    for (why, case) in cases {
        let next = noted(&case);
        assert!(migration(&next).called_off.as_ref().unwrap().contains(why), "{next:?}");
        assert_eq!(next.outcome, None);
        assert_eq!(committed(&case.plan()).phase, Phase::Deposing, "a naming on its way cannot come after it");
    }
    let open = Order::OpenOrigin {
        request_id: "o".into(),
        origin: origin(),
        was: Door { min_replicas_to_write: 0, min_replicas_max_lag: 10 },
    };
    let called_off = || {
        let case = cut(over);
        case.seen(|s| s.operation.as_mut().unwrap().steps.push(Step { name: "called off".into(), at_ms: 100 }))
    };
    let plan = called_off().plan();
    assert_eq!(orders(&plan), [(2, Order::Stop), (2, open.clone())]);
    assert_eq!(committed(&plan).master.as_ref().map(|m| m.instance), Some(0), "the present data leads at once");
    assert_eq!(orders(&called_off().silent(2).plan()), [(0, open)], "somebody else opens it");
    let opened = called_off().state(2, |s| s.origin.as_mut().unwrap().opened = true);
    assert_eq!(outcome(&opened), "failed: because. The present data stays; o:6379 takes writes again");
    let unreached = called_off().seen(|s| s.wall_ms = 60_101);
    let told = outcome(&unreached);
    assert!(told.contains("could not be reached") && told.ends_with("CONFIG SET min-replicas-to-write 0"), "{told}");
    let stays = called_off().state(2, held);
    assert_eq!(
        committed(&stays.plan()).master.as_ref().map(|m| m.instance),
        Some(0),
        "what holds everything is not named any more"
    );
}

#[test]
fn a_failover_meanwhile_goes_on_without_the_follower_and_the_origin_is_followed_on() {
    assert_eq!(orders(&following(|_| {}).master_dead().plan()), [(1, Order::Fence)], "beside the commit that deposes");
    let case = following(|_| {}).master_dead().deposing().cut(1).state(2, |s| s.epoch = 5);
    let plan = case.plan();
    assert_eq!(committed(&plan).master.as_ref().map(|m| m.instance), Some(1));
    assert!(!orders(&plan).iter().any(|(i, _)| *i == 2), "the follower is left alone: {plan:#?}");
    let alone = following(|_| {}).master_dead().deposing().silent(1).state(2, |s| (s.epoch, s.fenced_epoch) = (5, Some(5)));
    assert_eq!(orders(&alone.plan()), [], "what it copied is no copy of ours");
    let serves = case.record(|r| {
        r.phase = Phase::Promoting;
        r.master = r.known_replicas.iter().find(|m| m.instance == 1).cloned();
        r.evidence = Some(Evidence::Dead { run_id: "run-0".into(), proof: "signal 9".into() });
    });
    let serves = serves.state(1, |s| (s.assigned_epoch, s.serving, s.role, s.fenced_epoch) = (5, true, Role::Master, None));
    let next = noted(&serves);
    assert_eq!((next.outcome.as_ref(), next.epoch), (None, 5), "{next:?}");
}

#[test]
fn the_end_tells_what_leads_what_was_replaced_and_how_the_origin_is_opened() {
    let case = cut(ready).state(2, held).record(|r| {
        r.phase = Phase::Promoting;
        r.restored = Some(Restored { epoch: 5, snapshot: "0000000005-20261124T000200Z-00000000000000000500".parse().unwrap() });
        r.histories.push(History { epoch: 5, replid: THEIRS.into(), from: 500, to: None, next: None });
    });
    let winner = case.seen.agents.iter().find(|a| a.shard == Some(2)).and_then(|a| member(a.state.as_ref().unwrap()));
    let case = case.record(|r| r.master = winner).state(2, |s| {
        (s.assigned_epoch, s.serving, s.role, s.fenced_epoch) = (5, true, Role::Master, None);
    });
    let told = outcome(&case);
    for part in ["done: instance 2 is master of epoch 5", "the data of o:6379 up to offset 500", PRESENT, "o:6379 refuses writes"]
    {
        assert!(told.contains(part), "{part} in {told}");
    }
}

/// One instance, whose server follows the origin itself.
fn alone(change: impl FnOnce(&mut Migration)) -> Case {
    let mut case = begun(|m| {
        (m.alone, m.follower) = (true, 0);
        change(m);
    });
    case.seen.agents.retain(|a| a.shard == Some(0));
    case.seen.scheduler.tasks.as_mut().unwrap().truncate(1);
    case.spec.instances = 1;
    case.record(|r| r.known_replicas.clear())
}

#[test]
fn a_master_that_is_alone_is_saved_first_and_follows_itself() {
    let plan = alone(|_| {}).plan();
    assert_eq!((committed(&plan).epoch, committed(&plan).phase), (5, Phase::Deposing));
    let fenced = Some(Evidence::Fenced { run_id: "run-0".into(), epoch: 5 });
    let cut = |change: fn(&mut Migration)| alone(change).deposing().record(|r| r.evidence = fenced.clone()).cut(0);
    assert!(matches!(orders(&cut(|_| {}).plan())[..], [(0, Order::Backup { .. })]));
    let kept: fn(&mut Migration) = |m| m.saved = Some(PRESENT.parse().unwrap());
    assert!(matches!(orders(&cut(kept).plan())[..], [(0, Order::FollowOrigin { .. })]));
    let beside = |s: &mut State| {
        follows(s);
        s.redis.as_mut().unwrap().started_epoch = 5;
    };
    let waits = cut(kept).state(0, beside);
    assert_eq!(waits.actions(), Vec::<String>::new(), "it is neither cut off nor named, and follows until somebody asks");
    let again = cut(kept).state(0, |s| s.redis = None);
    assert!(matches!(orders(&again.plan())[..], [(0, Order::FollowOrigin { .. })]), "its server died");
    let cancelled = cut(kept).state(0, beside).seen(|s| {
        s.operation = Some(operation(|m| {
            (m.alone, m.follower, m.cancelled) = (true, 0, Some("ann".into()));
            m.saved = Some(PRESENT.parse().unwrap());
        }));
    });
    assert!(outcome(&cancelled).starts_with("done: ann cancelled it"));
    let ended = cancelled.seen(|s| s.operation.as_mut().unwrap().outcome = Some("done: x".into()));
    assert_eq!(orders(&ended.plan()), [(0, Order::Stop)], "its own data is started from next");
    let idle = ended.state(0, |s| {
        s.redis = None;
        s.local = Some(LocalDump {
            sha256: "5ha".into(),
            bytes: 1,
            position: Some(Position { replid: OLD.into(), offset: 100 }),
            epoch: 4,
            created_s: 1,
        });
    });
    assert!(matches!(orders(&idle.plan())[..], [(0, Order::Start { .. })]));
}

#[test]
fn a_plan_that_migrates_unasked_unsaved_or_too_early_is_vetoed() {
    let vetoed = |plan: &Plan, case: &Case, change: fn(&mut Migration)| {
        let mut seen = case.seen.clone();
        seen.operation = Some(operation(change));
        violations(&case.spec, &seen, plan, NOW, Timing::default().silent_after).join("; ")
    };
    let named = cut(ready).state(2, held);
    for change in [|_: &mut Migration| {}, saved, over, |m: &mut Migration| (m.cut_over, m.door) = (true, Some(Door::default()))]
    {
        assert!(vetoed(&named.plan(), &named, change).contains("without being saved, or unasked"));
    }
    let close = cut(ready);
    for change in [|_: &mut Migration| {}, saved, over] {
        assert!(vetoed(&close.plan(), &close, change).contains("before everything else is ready"));
    }
    let opens = cut(over);
    assert!(vetoed(&opens.plan(), &opens, ready).contains("opened while it is migrated"));
    let follow = begun(|_| {});
    assert!(vetoed(&follow.plan(), &follow, |m| m.follower = 1).contains("unasked"));
    assert!(vetoed(&follow.plan(), &follow, over).contains("unasked"));
}

fn examined() -> Examined {
    let door = Some(Door { min_replicas_to_write: 0, min_replicas_max_lag: 10 });
    Examined {
        instance: 2,
        version: "7.0.15".into(),
        run_id: "theirs".into(),
        position: Some(at(500)),
        keys: 9,
        door,
        ..Examined::default()
    }
}

fn judged(case: &Case, consent_epoch: Option<u64>, dry_run: bool, change: impl FnOnce(&mut Examined)) -> Judgement {
    let mut examined = examined();
    change(&mut examined);
    ask(case, &Ask::Migrate { owner: "me".into(), origin: origin(), consent_epoch, dry_run, examined: Some(Box::new(examined)) })
}

fn ask(case: &Case, ask: &Ask) -> Judgement {
    let timing = Timing::default();
    judge(ask, View { spec: &case.spec, policy: &Policy::default(), timing: &timing, seen: &case.seen, now: NOW }, "id".into())
}

fn proven() -> Case {
    Case::stable().seen(|s| s.proven = ["run-1".into(), "run-2".into()].into())
}

#[test]
fn without_consent_for_this_epoch_only_the_command_is_told() {
    let Judgement::Refuse(why) = judged(&proven(), None, false, |_| {}) else { panic!("begun") };
    assert!(why.contains("aurora-redis migrate o:6379 --consent 4"), "{why}");
    let Judgement::Refuse(why) = judged(&proven(), Some(3), false, |_| {}) else { panic!("begun") };
    assert!(why.contains("present is epoch 4"), "{why}");
    let Judgement::Begin(begun, _) = judged(&proven(), Some(4), false, |_| {}) else { panic!("not begun") };
    assert_eq!(begun.kind, operation(|_| {}).kind);
}

#[test]
fn everything_against_it_is_told_up_front() {
    let shown = |case: &Case, change: fn(&mut Examined)| -> MigrationPlan {
        match judged(case, None, true, change) {
            Judgement::ShowMigration(plan) => *plan,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(shown(&proven(), |_| {}).objections, Vec::<String>::new());
    let against = |case: Case, change: fn(&mut Examined)| shown(&case, change).objections.join("; ");
    assert!(against(proven(), |e| e.objections.push("too new".into())).contains("too new"));
    assert!(against(proven(), |e| e.run_id = "run-1".into()).contains("an instance of this cluster"));
    assert!(against(proven(), |e| e.position.as_mut().unwrap().replid = OLD.into()).contains("holds its data"));
    assert!(
        against(proven().seen(|s| s.operation = Some(operation(|_| {}))), |_| {}).contains("operation o (migrate) is in flight")
    );
    assert!(against(proven().seen(|s| s.store.configured = false), |_| {}).contains("no store"));
    assert!(against(proven().state(1, |s| s.uploads.error = Some("no space".into())), |_| {}).contains("uploads fail"));
    assert!(against(proven().state(2, |s| s.cannot_lead = Some("no module".into())), |_| {}).contains("no module"));
    assert!(against(proven().record(|r| r.durability.acks = 2), |_| {}).contains("durability.acks = 2"));
    assert!(matches!(judged(&proven().master_dead(), Some(4), false, |_| {}), Judgement::Refuse(_)));
    let plan = shown(&proven(), |e| e.instance = 0);
    assert!(plan.steps[0].contains("nobody serves until the cut-over"), "{plan:?}");
}

#[test]
fn a_cut_over_needs_a_linked_follower_and_a_cancel_comes_before_the_origin_is_closed() {
    let (cut_over, cancel) = (Ask::CutOver { owner: "ann".into() }, Ask::CancelMigration { owner: "ann".into() });
    let Judgement::Begin(begun, _) = ask(&following(|_| {}), &cut_over) else { panic!("not begun") };
    assert!(migration(&begun).cut_over && begun.id == "o");
    let unlinked = following(|_| {}).state(2, |s| s.redis.as_mut().unwrap().link = Some(false));
    for case in [begun_not(), unlinked, following(|m| m.cut_over = true), Case::stable()] {
        assert!(matches!(ask(&case, &cut_over), Judgement::Refuse(_)));
    }
    let Judgement::Begin(ended, _) = ask(&following(|_| {}), &cancel) else { panic!("not cancelled") };
    assert_eq!(migration(&ended).cancelled.as_deref(), Some("ann"));
    for case in [cut(ready), Case::stable()] {
        assert!(matches!(ask(&case, &cancel), Judgement::Refuse(_)));
    }
}

fn begun_not() -> Case {
    begun(|_| {})
}
