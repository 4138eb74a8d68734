//! `doctor`: runs the checks of [`crate::doctor`] and prints them.

use std::path::Path;

use super::door::{Door, candidates};
use super::table::clean;
use super::{Context, Failure};
use crate::doctor::{Check, Verdict, clock, host, scheduler, secret, store, zookeeper_clock};
use crate::http::{ClusterAnswer, leader_url};
use crate::view::InstanceView;
use agent::causes::chain;

pub(super) async fn run(context: &Context) -> Result<(), Failure> {
    let mut checks = outside(context).await;
    checks.push(store(&context.place).await);
    checks.push(secret(context.place.secret_file.as_deref()));
    checks.extend(host(Path::new("/proc"), Path::new("/sys")));
    context.print(&checks, || checks.iter().map(render).collect())?;
    let failed = checks.iter().filter(|check| check.verdict == Verdict::Fail).count();
    if failed > 0 { Err(Failure::Failed(format!("{failed} of {} checks failed", checks.len()))) } else { Ok(()) }
}

/// ZooKeeper, the controller, the scheduler, the clock.
async fn outside(context: &Context) -> Vec<Check> {
    let place = &context.place;
    let begun = std::time::Instant::now();
    let keeper = match context.keeper().await {
        Ok(keeper) => keeper,
        Err(error) => {
            let next = "check --zookeeper, that its servers run, and that this host may connect to them";
            return vec![Check::fail("zookeeper", chain(&error), next)];
        }
    };
    let mut checks = vec![Check::ok("zookeeper", format!("{}: session in {} ms", place.zookeeper, begun.elapsed().as_millis()))];
    let path = place.paths().controllers();
    let nodes = candidates(keeper, &path).await.unwrap_or_default();
    let (mut controller_clock, mut problems) = (None, Vec::new());
    checks.push(match leader_url(&nodes) {
        None => Check::fail(
            "controller",
            format!("{path} names none"),
            "start aurora-redis-controller for this cluster; its log says why it does not lead",
        ),
        Some(url) => match ask(context).await {
            Ok(answer) => {
                controller_clock = Some(answer.now_ms);
                problems = answer.cluster.instances.iter().filter_map(problem).collect();
                Check::ok("controller", format!("{url} leads, {} in all: {}", nodes.len(), answer.cluster.summary))
            }
            Err(problem) => {
                Check::fail("controller", problem, "look at the controller's log, and that this host may connect to it")
            }
        },
    });
    checks.append(&mut problems);
    checks.push(match place.scheduler.client(keeper) {
        Ok(client) => scheduler(&client).await,
        Err(error) => Check::fail("scheduler", chain(&error), "check --scheduler"),
    });
    checks.push(match controller_clock {
        Some(theirs) => clock("the controller's", theirs),
        None => zookeeper_clock(keeper, &place.zookeeper_root).await,
    });
    checks
}

/// What an agent reports of its instance, among it that its server runs without the lease module.
fn problem(instance: &InstanceView) -> Option<Check> {
    let problem = instance.problem.as_ref()?;
    let found = format!("instance {}: {problem}", instance.instance);
    Some(Check::warn("instance", found, "see agent-problem in the runbook"))
}

async fn ask(context: &Context) -> Result<ClusterAnswer, String> {
    let door = Door::find(context).await.map_err(|error| chain(&error))?;
    door.get("cluster").await.map_err(|error| chain(&error))
}

fn render(check: &Check) -> String {
    let word = match check.verdict {
        Verdict::Ok => "ok  ",
        Verdict::Warn => "warn",
        Verdict::Fail => "FAIL",
    };
    let next = check.next.as_ref().map_or(String::new(), |next| format!("{:18}next: {}\n", "", clean(next)));
    format!("{word}  {:<12}{}\n{next}", check.name, clean(&check.found))
}
