//! `create`: the first desired state into ZooKeeper, then the job to the scheduler. What is there already is left as it is, so a
//! `create` that was cut off between the two is finished by the next. With `--from`, what the cluster is to be born from comes before both.

use std::path::PathBuf;

use agent::layers::{Layers, Mistakes, Origin};
use agent::snapshot::SnapshotId;
use agent::zk::{self, Keeper};
use aurora::types::{JobConfiguration, ResponseCode};
use serde::Serialize;

use super::{Context, Failure, door, mistakes, output, owner, say};
use crate::cluster_file::{ClusterFile, Surroundings};
use crate::config::Place;
use crate::model::Spec;

mod beside;

use beside::Beside;

/// What `create` found and did.
#[derive(Serialize)]
struct Created {
    cluster: String,
    /// `created`, or `exists`.
    spec: &'static str,
    /// `created`, or `exists`.
    job: &'static str,
    instances: u32,
    /// Whether a controller is elected.
    controller: bool,
    /// What it is to be born from; absent for an empty cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot: Option<SnapshotId>,
}

/// Arguments of `create`.
pub(super) struct Create {
    /// The cluster file.
    pub file: PathBuf,
    /// What the cluster is to be born from.
    pub from: Option<String>,
    pub dry_run: bool,
}

pub(super) async fn run(mut layers: Layers, wanted: Create) -> Result<(), Failure> {
    let path = wanted.file.as_path();
    let file = ClusterFile::load(path);
    if let Ok(file) = &file {
        let given = [
            ("cluster", Some(&file.cluster)),
            ("zookeeper", file.zookeeper.as_ref()),
            ("zookeeper_root", file.zookeeper_root.as_ref()),
        ];
        for (name, value) in given {
            if let Some(value) = value {
                layers.lay_under(name, value, Origin::File(path.into(), 1));
            }
        }
    }
    let place = Place::read(&mut layers);
    let output = output(&mut layers);
    if let Ok(file) = &file
        && !place.cluster.is_empty()
        && place.cluster != file.cluster
    {
        layers.reject("cluster", &format!("the cluster file {} is of {}", path.display(), file.cluster));
    }
    let file = match (file, layers.finish()) {
        (Ok(file), Ok(_)) => file,
        (Ok(_), Err(found)) | (Err(found), Ok(_)) => return Err(mistakes(found)),
        (Err(found), Err(more)) => return Err(mistakes(Mistakes([found.0, more.0].concat()))),
    };
    let around = Surroundings { zookeeper: place.zookeeper.clone(), zookeeper_root: place.zookeeper_root.clone() };
    let context = Context::new(place, output);
    let beside = match &wanted.from {
        Some(source) => Some(Beside::look(&context, &file, source).await?),
        None => None,
    };
    if wanted.dry_run {
        return print_job(&file.job(&around, file.instances), beside.as_ref());
    }
    create(&context, &file, &around, beside.as_ref()).await
}

async fn create(context: &Context, file: &ClusterFile, around: &Surroundings, beside: Option<&Beside>) -> Result<(), Failure> {
    let place = &context.place;
    let keeper = context.keeper().await?;
    let snapshot = match beside {
        Some(beside) => Some(beside.import(context).await?),
        None => None,
    };
    let (spec, made) = ensure_spec(keeper, place, file).await?;
    if spec.instances != file.instances {
        eprintln!(
            "note: {} exists and wants {} instances, the cluster file {}; aurora-redis scale changes it",
            place.paths().spec(),
            spec.instances,
            file.instances
        );
    }
    let job_made = create_job(place, keeper, &file.job(around, spec.instances)).await?;
    let controller = !door::candidates(keeper, &place.paths().controllers()).await?.is_empty();
    let word = |made| if made { "created" } else { "exists" };
    let (cluster, instances) = (place.cluster.clone(), spec.instances);
    let created = Created { cluster, spec: word(made), job: word(job_made), instances, controller, snapshot };
    context.print(&created, || describe(&created))
}

fn describe(created: &Created) -> String {
    let Created { cluster, spec, job, instances, controller, snapshot } = created;
    let mut text = match (*spec, *job) {
        ("exists", "exists") => format!("{cluster} exists already, with its job; nothing was changed.\n"),
        _ => format!("{cluster}: desired state {spec}, job {job}, {instances} instances.\n"),
    };
    if let Some(id) = snapshot {
        text += &format!("It is born from snapshot {id}, which was imported.\n");
    }
    text += match controller {
        true => "Its controller takes over from here; aurora-redis watch shows it.",
        false => {
            "No controller is elected for it yet: start aurora-redis-controller. Until then its instances wait, with no server running."
        }
    };
    text
}

/// The spec in ZooKeeper, and whether we made it.
async fn ensure_spec(keeper: &Keeper, place: &Place, file: &ClusterFile) -> Result<(Spec, bool), Failure> {
    let client = keeper.client()?;
    let paths = place.paths();
    zk::ensure(&client, paths.root()).await?;
    let spec = file.spec(&owner(), u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0));
    let path = paths.spec();
    let data = serde_json::to_vec(&spec)?;
    match zk::call("make", &path, client.create(&path, &data, &zk::persistent())).await {
        Ok(_) => return Ok((spec, true)),
        Err(zk::Error::Call { source: zookeeper_client::Error::NodeExists, .. }) => {}
        Err(error) => return Err(error.into()),
    }
    match zk::read(&client, &path).await? {
        Some(node) => Ok((node.json(&path, "desired state")?, false)),
        None => Err(Failure::Failed(format!("{path} was made and removed by somebody else just now; repeat"))),
    }
}

/// Whether the job was created; false when it exists.
async fn create_job(place: &Place, keeper: &Keeper, job: &JobConfiguration) -> Result<bool, Failure> {
    let client = place.scheduler.client(keeper)?;
    match client.create_job(job).await {
        Ok(_) => Ok(true),
        Err(error) if says_exists(&error) => Ok(false),
        Err(error) if !error.is_definite() => {
            // Perhaps created: the list of jobs tells.
            let there = client.jobs(Some(&job.key.role)).await?.iter().any(|found| found.key == job.key);
            if there { Ok(true) } else { Err(error.into()) }
        }
        Err(error) => Err(error.into()),
    }
}

fn says_exists(error: &aurora::Error) -> bool {
    match error {
        aurora::Error::Response { code: ResponseCode::INVALID_REQUEST, message, .. } => message.contains("already exists"),
        aurora::Error::GaveUp { source, .. } => says_exists(source),
        _ => false,
    }
}

/// The job as JSON: what the scheduler gets, with the executor's part unfolded.
fn print_job(job: &JobConfiguration, beside: Option<&Beside>) -> Result<(), Failure> {
    let task = &job.task_config;
    let data = task.executor_config.as_ref().and_then(|executor| executor.data.as_deref()).unwrap_or("null");
    let mut shown = serde_json::json!({
        "key": job.key.to_string(),
        "instances": job.instance_count,
        "tier": task.tier,
        "priority": task.priority,
        "constraints": task.constraints.iter().map(|c| format!("{}: {:?}", c.name, c.constraint)).collect::<Vec<_>>(),
        "resources": task.resources.iter().map(|resource| format!("{resource:?}")).collect::<Vec<_>>(),
        "executor_data": serde_json::from_str::<serde_json::Value>(data)?,
    });
    if let Some(beside) = beside {
        shown["from"] = beside.describe();
    }
    say(&serde_json::to_string_pretty(&shown)?);
    Ok(())
}
