//! Tasks from createJob to their ends.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use aurora::types::{InstanceSet, ScheduleStatus, TaskQuery};
use rustix::process::Signal;
use serde_json::json;
use tests::harness::process::{runs, send};
use tests::harness::{Bench, wait};

use super::SOON;
use super::world::{LocalTask, SERVER, World, daemon, gone, hasty, hosts, job, key};

fn set(ids: &[u32]) -> InstanceSet {
    InstanceSet::new(ids.iter().copied()).expect("not empty")
}

/// Paths of the lifecycle calls that a task noted, in order.
fn posts(task: &LocalTask) -> Result<Vec<String>> {
    Ok(task.file("calls")?.lines().filter_map(|line| line.strip_prefix("POST ").map(str::to_owned)).collect())
}

#[test]
fn a_job_runs_is_announced_restarted_scaled_and_killed() {
    Bench::run("life", life);
}

async fn life(bench: Arc<Bench>) -> Result<()> {
    let world = World::start(&bench, &hosts(4)).await?;
    let job = job(3, daemon(SERVER), hasty());
    world.client.create_job(&job).await?;
    let tasks = world.running(&[0, 1, 2]).await?;
    for task in &tasks {
        let n = task.instance + 1;
        ensure!(task.host == Some(format!("h{n}")) && task.address == Some(format!("127.0.0.{}", n + 10)), "{task:?}");
        ensure!(task.job == "redis/test/cache" && runs(task.running_pid()?), "{task:?}");
        ensure!(task.file("calls")?.starts_with("GET /health\n"), "not checked");
    }
    for member in world.member_count(&key(), 3).await? {
        let task = tasks.iter().find(|task| Some(task.instance) == member.shard.map(|s| s as i32)).context("shard")?;
        ensure!(member.service_endpoint.port == task.ports["redis"], "{member:?}");
        ensure!(Some(&member.service_endpoint.host) == task.address.as_ref(), "{member:?}");
        ensure!(member.additional_endpoints["health"].port == task.ports["health"], "{member:?}");
    }
    let again = world.client.create_job(&job).await;
    ensure!(again.as_ref().is_err_and(|error| format!("{error:?}").contains("Job redis/test/cache already exists")), "{again:?}");

    world.client.restart_shards(&key(), &set(&[1])).await?;
    let restarted = world.replaced(&tasks[1]).await?;
    gone(&[tasks[1].running_pid()?]).await?;
    ensure!(world.ended(&tasks[1].task_id).await?.0 == ScheduleStatus::KILLED);
    ensure!(posts(&tasks[1])? == ["/quitquitquit", "/abortabortabort"]);
    let scheduled = world.scheduled(&restarted.task_id).await?;
    ensure!(scheduled.ancestor_id.as_deref() == Some(&tasks[1].task_id), "{scheduled:?}");

    world.client.add_instances(&key(), 0, 1).await?;
    let four = world.running(&[0, 1, 2, 3]).await?;
    world.client.kill_tasks(&key(), &set(&[3, 0]), "scale down").await?;
    world.running(&[1, 2]).await?;
    let killed = world.scheduled(&four[3].task_id).await?;
    let texts: Vec<_> = killed.task_events.iter().filter_map(|event| event.message.as_deref()).collect();
    ensure!(texts.contains(&"Killed by UNSECURE.\nscale down"), "{texts:?}");
    world.member_count(&key(), 2).await?;

    let pids: Vec<u32> = world.local_tasks().await?.iter().filter_map(|task| task.pid).collect();
    ensure!(world.process.stop(Duration::from_secs(20)), "it did not end by itself");
    ensure!(pids.len() == 2 && !pids.iter().any(|pid| runs(*pid)), "{pids:?}");
    ensure!(world.members(&key()).await?.is_empty(), "members stayed");
    Ok(())
}

#[test]
fn processes_get_thermos_environment_templates_and_logs() {
    Bench::run("environment", environment);
}

async fn environment(bench: Arc<Bench>) -> Result<()> {
    let world = World::start(&bench, &hosts(1)).await?;
    let first = "echo one; echo two >&2; env | sort > env; \
                 echo {{mesos.instance}} {{mesos.hostname}} {{thermos.user}} {{thermos.task_id}} {{thermos.ports[redis]}} > args";
    let processes = json!([
        {"name": "second", "cmdline": "test -e args && exec sleep 600"},
        {"name": "first", "cmdline": first},
    ]);
    let order = json!({"announce": null, "health_check_config": {"health_checker": {"shell": {"shell_command": "true"}}}});
    let mut job = job(1, processes, order);
    let config = job.task_config.executor_config.as_mut().context("executor")?;
    let mut data: serde_json::Value = serde_json::from_str(config.data.as_deref().unwrap_or_default())?;
    data["task"]["constraints"] = json!([{"order": ["first", "second"]}]);
    config.data = Some(data.to_string());
    world.client.create_job(&job).await?;
    let task = world.running(&[0]).await?.remove(0);
    wait::until_now("the second process runs", SOON, || task.file(".logs/second/0/stdout")).await?;
    let sandbox = task.sandbox.clone().context("sandbox")?;
    let expected = format!("0 127.0.0.11 redis {} {}\n", task.task_id, task.ports["redis"]);
    ensure!(task.file("args")? == expected, "{}", task.file("args")?);
    ensure!(task.file(".logs/first/0/stdout")? == "one\n" && task.file(".logs/first/0/stderr")? == "two\n");
    let env = task.file("env")?;
    let names: Vec<&str> = env.lines().filter_map(|line| line.split('=').next()).collect();
    // PWD, SHLVL and _ are bash's own.
    let expected = ["AURORA_REDIS_HOST_ID", "HOME", "LOGNAME", "PATH", "PWD", "SHLVL", "USER", "_"];
    ensure!(names == expected, "{env}");
    ensure!(env.contains(&format!("HOME={}\n", sandbox.display())) && env.contains("AURORA_REDIS_HOST_ID=id1\n"), "{env}");
    ensure!(world.members(&key()).await?.is_empty(), "it was not to be announced");
    Ok(())
}

#[test]
fn a_process_killed_comes_back_in_its_sandbox_and_a_task_without_sandbox_elsewhere() {
    Bench::run("comeback", comeback);
}

async fn comeback(bench: Arc<Bench>) -> Result<()> {
    let world = World::start(&bench, &hosts(1)).await?;
    let mut patient = hasty();
    patient["health_check_config"] = json!({"interval_secs": 0.2, "timeout_secs": 5.0, "max_consecutive_failures": 1000});
    world.client.create_job(&job(1, daemon(SERVER), patient)).await?;
    let before = world.running(&[0]).await?.remove(0);
    send(before.running_pid()?, Signal::KILL);
    let after = wait::until("another process runs", SOON, async || {
        let task = world.local_tasks().await?.pop().context("no task")?;
        ensure!(task.pid.is_some() && task.pid != before.pid, "{task:?}");
        Ok::<_, anyhow::Error>(task)
    })
    .await?;
    ensure!(after.task_id == before.task_id && after.state == "RUNNING", "{after:?}");

    send(after.running_pid()?, Signal::KILL);
    std::fs::remove_dir_all(after.sandbox.as_ref().context("sandbox")?)?;
    let fresh = world.replaced(&after).await?;
    let (status, message) = world.ended(&after.task_id).await?;
    ensure!(status == ScheduleStatus::FAILED && message.contains("has vanished"), "{status} {message}");
    ensure!(fresh.sandbox != after.sandbox && fresh.host == after.host, "{fresh:?}");
    world.member_count(&key(), 1).await?;
    Ok(())
}

#[test]
fn a_task_that_turns_unhealthy_fails_and_a_flapping_one_is_throttled() {
    Bench::run("unhealthy", unhealthy);
}

async fn unhealthy(bench: Arc<Bench>) -> Result<()> {
    let world = World::start_with(&bench, &hosts(1), &["--flapping-delay", "300ms"]).await?;
    world.client.create_job(&job(1, daemon(SERVER), hasty())).await?;
    let mut task = world.running(&[0]).await?.remove(0);
    for round in 0..2 {
        std::fs::write(task.sandbox.as_ref().context("sandbox")?.join("health"), "sick")?;
        let next = world.replaced(&task).await?;
        let (status, message) = world.ended(&task.task_id).await?;
        ensure!(status == ScheduleStatus::FAILED && message.starts_with("Failed health check!"), "{status} {message}");
        let events = world.scheduled(&next.task_id).await?.task_events;
        let throttled = events[0].status == ScheduleStatus::THROTTLED;
        ensure!(throttled == (round == 1), "round {round}: {events:?}");
        task = next;
    }
    ensure!(world.scheduled(&task.task_id).await?.failure_count == 2);
    Ok(())
}

#[test]
fn processes_that_ignore_sigterm_and_what_they_started_are_killed() {
    Bench::run("stubborn", stubborn);
}

async fn stubborn(bench: Arc<Bench>) -> Result<()> {
    let world = World::start_with(&bench, &hosts(1), &["--preemption-wait", "1s"]).await?;
    let cmdline = "trap 'echo term >> signals' TERM; (setsid sleep 600 & echo $! > child; wait) & \
                   while true; do sleep 0.1; done";
    let last = json!({"name": "last", "cmdline": "echo last > ended", "final": true});
    let mut processes = daemon(cmdline);
    processes.as_array_mut().context("array")?.push(last);
    let shell =
        json!({"health_check_config": {"interval_secs": 0.2, "health_checker": {"shell": {"shell_command": "test -s child"}}}});
    world.client.create_job(&job(1, processes, shell)).await?;
    let task = world.running(&[0]).await?.remove(0);
    let child: u32 = task.file("child")?.trim().parse()?;
    ensure!(runs(child));
    world.client.kill_tasks(&key(), &set(&[0]), "").await?;
    ensure!(world.ended(&task.task_id).await? == (ScheduleStatus::KILLED, "Task killed.".to_owned()));
    ensure!(task.file("signals")? == "term\n");
    ensure!(!runs(child) && !runs(task.running_pid()?), "something was left");
    // The process used up all the time there was, so the final one had none.
    ensure!(task.file("ended").is_err());
    Ok(())
}

#[test]
fn tasks_die_with_a_scheduler_that_is_killed() {
    Bench::run("orphans", orphans);
}

async fn orphans(bench: Arc<Bench>) -> Result<()> {
    let world = World::start(&bench, &hosts(1)).await?;
    let cmdline = "setsid sleep 600 & echo $! > child; wait";
    let shell =
        json!({"health_check_config": {"interval_secs": 0.2, "health_checker": {"shell": {"shell_command": "test -s child"}}}});
    world.client.create_job(&job(1, daemon(cmdline), shell)).await?;
    let task = world.running(&[0]).await?.remove(0);
    let child: u32 = task.file("child")?.trim().parse()?;
    ensure!(runs(child));
    world.process.kill();
    gone(&[task.running_pid()?, child]).await
}

#[test]
fn a_task_without_room_waits_until_a_host_is_free() {
    Bench::run("room", room);
}

async fn room(bench: Arc<Bench>) -> Result<()> {
    let world = World::start(&bench, &hosts(1)).await?;
    world.client.create_job(&job(2, daemon(SERVER), hasty())).await?;
    let waiting = wait::until("one runs and one waits", SOON, async || {
        let tasks = world.local_tasks().await?;
        let states: Vec<&str> = tasks.iter().map(|task| task.state.as_str()).collect();
        ensure!(states == ["RUNNING", "PENDING"], "{states:?}");
        tasks.into_iter().next_back().ok_or_else(|| anyhow!("none"))
    })
    .await?;
    ensure!(waiting.host.is_none() && waiting.sandbox.is_none() && waiting.ports.is_empty(), "{waiting:?}");
    let reasons = reqwest::get(format!("{}/pendingtasks", world.url)).await?.text().await?;
    ensure!(reasons.contains(&waiting.task_id) && reasons.contains("Limit not satisfied: host"), "{reasons}");
    world.client.kill_tasks(&key(), &set(&[0]), "").await?;
    let running = world.running(&[1]).await?;
    ensure!(running[0].task_id == waiting.task_id);
    let all = world.client.tasks_with_configs(&TaskQuery::job(&key())).await?;
    ensure!(all.len() == 2 && all.iter().all(|task| task.assigned_task.task.executor_config.is_some()));
    let jobs = world.client.jobs(Some("redis")).await?;
    ensure!(jobs.len() == 1 && jobs[0].instance_count == 1, "{jobs:?}");
    Ok(())
}

#[test]
fn hosts_in_network_namespaces_run_their_tasks_there() {
    Bench::run_on_hosts("namespaces", 2, namespaces);
}

async fn namespaces(bench: Arc<Bench>) -> Result<()> {
    let host = |host: &tests::harness::netns::Host| {
        format!("[[host]]\nname = {:?}\naddress = {:?}\nwrapper = {:?}\n", host.name, host.address, host.wrapper())
    };
    let file: String = bench.hosts().iter().map(host).collect();
    let world = World::start(&bench, &file).await?;
    world.client.create_job(&job(2, daemon(SERVER), hasty())).await?;
    let tasks = world.running(&[0, 1]).await?;
    for (task, host) in tasks.iter().zip(bench.hosts()) {
        ensure!(task.address.as_ref() == Some(&host.address), "{task:?}");
        let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net"));
        let theirs = of(&task.running_pid()?.to_string())?;
        ensure!(theirs != of(&world.process.pid().to_string())?, "not in a namespace of its own");
        let url = format!("http://{}:{}/health", host.address, task.ports["health"]);
        ensure!(reqwest::get(url).await?.text().await? == "ok");
    }
    world.member_count(&key(), 2).await?;
    world.client.restart_shards(&key(), &set(&[0])).await?;
    world.replaced(&tasks[0]).await?;
    ensure!(tasks[0].file("calls")?.contains("POST /quitquitquit"), "lifecycle calls go through the wrapper");
    world.member_count(&key(), 2).await?;

    // A host cut off loses its member, not its task.
    bench.network().isolate(&bench.hosts()[1])?;
    let left = world.member_count(&key(), 1).await?;
    ensure!(left[0].shard == Some(0), "{left:?}");
    ensure!(world.local_tasks().await?.iter().all(|task| task.task_id != tasks[0].task_id && task.state == "RUNNING"));
    bench.network().heal()?;
    world.member_count(&key(), 2).await?;
    ensure!(world.process.stop(Duration::from_secs(20)), "it did not end by itself");
    ensure!(world.members(&key()).await?.is_empty(), "members stayed");
    Ok(())
}

#[test]
fn members_stay_while_the_scheduler_is_stopped() {
    Bench::run("stopped", stopped);
}

async fn stopped(bench: Arc<Bench>) -> Result<()> {
    let world = World::start(&bench, &hosts(1)).await?;
    world.client.create_job(&job(1, daemon(SERVER), hasty())).await?;
    let task = world.running(&[0]).await?.remove(0);
    world.member_count(&key(), 1).await?;
    world.process.signal(Signal::STOP);
    let leader = async || anyhow::Ok(world.zookeeper.client().await?.list_children("/aurora/scheduler").await?.len());
    wait::until("the scheduler's own session has expired", SOON, async || {
        let count = leader().await?;
        ensure!(count == 0, "{count} nodes of the scheduler");
        Ok::<_, anyhow::Error>(())
    })
    .await?;
    ensure!(world.members(&key()).await?.len() == 1 && runs(task.running_pid()?));
    world.process.signal(Signal::CONT);
    world.client.ping().await?;
    ensure!(world.running(&[0]).await?[0].task_id == task.task_id);
    Ok(())
}

#[test]
fn a_task_that_ends_by_itself_when_told_shortens_the_wait() {
    Bench::run("obedient", obedient);
}

async fn obedient(bench: Arc<Bench>) -> Result<()> {
    let world = World::start(&bench, &hosts(1)).await?;
    let answered = "self.wfile.write(body.encode())";
    let server = SERVER.replace(answered, &format!("{answered}\n        self.path == \"/quitquitquit\" and os._exit(0)"));
    let long = json!({"lifecycle": {"http": {"graceful_shutdown_wait_secs": 3600, "shutdown_wait_secs": 3600}}});
    world.client.create_job(&job(1, json!([{"name": "main", "cmdline": server}]), long)).await?;
    let task = world.running(&[0]).await?.remove(0);
    world.client.kill_tasks(&key(), &set(&[0]), "").await?;
    // The first call is answered, so there would be an hour to wait.
    ensure!(world.ended(&task.task_id).await?.0 == ScheduleStatus::KILLED);
    ensure!(posts(&task)? == ["/quitquitquit"]);
    gone(&[task.running_pid()?]).await
}
