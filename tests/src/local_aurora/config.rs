//! Job configurations: what the scheduler refuses, and how it stores the rest. Pure.
//!
//! Called by [`super::api`] for `createJob`, and for updates. The stored configuration differs from the one sent: tier, `production`,
//! links and empty collections are filled in. Besides what the real scheduler checks, the executor's data is checked
//! too, so that a job which cannot run here fails at once and by name.

use std::collections::BTreeMap;

use aurora::types::{Container, JobConfiguration, JobKey, MesosContainer, Resource, SlaPolicy, TaskConfig};

use super::template::Binding;
use super::thermos::{self, Job};

/// Most instances of one job.
pub const MAX_INSTANCES: i32 = 4000;

/// Jobs with fewer instances are not protected by counts and percentages.
pub const MIN_SLA_INSTANCES: i32 = 20;

/// The tier of a job that names none.
const DEFAULT_TIER: &str = "preemptible";

/// Checks `description`; returns it as it is stored, with what its executor will run. The error is the text for
/// INVALID_REQUEST.
pub fn accept(mut description: JobConfiguration) -> Result<(JobConfiguration, Job), String> {
    check_key(&description.key)?;
    if description.cron_schedule.as_deref().is_some_and(|schedule| !schedule.is_empty()) {
        return Err("Cron jobs may only be created/updated by calling scheduleCronJob.".to_owned());
    }
    if description.task_config.job != description.key {
        return Err(format!("Job key {} differs from that of its tasks, {}", description.key, description.task_config.job));
    }
    let (config, program) = accept_task(description.task_config, description.instance_count)?;
    description.task_config = config;
    check_count(description.instance_count)?;
    Ok((description, program))
}

/// Checks the configuration of a task of a job with `instances`; returns it as it is stored, with what its executor will run.
pub fn accept_task(mut config: TaskConfig, instances: i32) -> Result<(TaskConfig, Job), String> {
    check_key(&config.job)?;
    check_container(&config)?;
    check_resources(&config.resources)?;
    normalise(&mut config)?;
    check_policy(config.sla_policy.as_ref(), instances)?;
    let program = check_executor(&config)?;
    Ok((config, program))
}

/// Refuses numbers of instances that no job may have.
pub fn check_count(instances: i32) -> Result<(), String> {
    if (1..=MAX_INSTANCES).contains(&instances) {
        Ok(())
    } else {
        Err(format!("Instance count must be between 1 and {MAX_INSTANCES} inclusive."))
    }
}

fn check_policy(policy: Option<&SlaPolicy>, instances: i32) -> Result<(), String> {
    match policy {
        Some(SlaPolicy::Percentage(_) | SlaPolicy::Count(_)) if instances < MIN_SLA_INSTANCES => {
            Err(format!("Job with fewer than {MIN_SLA_INSTANCES} instances cannot have Percentage/Count SlaPolicy."))
        }
        Some(SlaPolicy::Count(policy)) if i64::from(instances) - policy.count < 1 => {
            Err(format!("Current CountSlaPolicy: count={} will not allow any instances to be killed.", policy.count))
        }
        Some(SlaPolicy::Percentage(policy)) if f64::from(instances) * (1.0 - policy.percentage / 100.0) < 1.0 => {
            let text = "will not allow any instances to be killed.";
            Err(format!("Current PercentageSlaPolicy: percentage={} {text}", policy.percentage))
        }
        Some(SlaPolicy::Unknown(_)) => Err("The SlaPolicy is of no known kind.".to_owned()),
        _ => Ok(()),
    }
}

/// Refuses keys that are no identifiers, and environments other than the scheduler's default ones.
pub fn check_key(key: &JobKey) -> Result<(), String> {
    let parts = [("role", &key.role), ("environment", &key.environment), ("name", &key.name)];
    for (what, value) in parts {
        if !is_identifier(value) {
            return Err(format!("Job {what} contains illegal characters: {}", shorten(value)));
        }
    }
    let environment = key.environment.as_str();
    let staging = environment.strip_prefix("staging").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()));
    if staging || ["prod", "devel", "test"].contains(&environment) {
        Ok(())
    } else {
        Err(format!("Job environment {environment} doesn't match: ^(prod|devel|test|staging\\d*)$"))
    }
}

/// Word characters, `-` and `.`, 1 to 255 of them.
pub fn is_identifier(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
}

fn shorten(text: &str) -> String {
    text.chars().take(300).collect()
}

fn check_container(config: &TaskConfig) -> Result<(), String> {
    match &config.container {
        Container::Mesos(MesosContainer { image: None, volumes }) => match volumes {
            Some(volumes) if !volumes.is_empty() => Err("Container volumes are not supported.".to_owned()),
            _ => Ok(()),
        },
        Container::Mesos(_) => Err("Container images are not supported by this scheduler.".to_owned()),
        Container::Docker(_) => Err("The container type DOCKER is not allowed".to_owned()),
        Container::Unknown(_) => Err("The job configuration has no known container type".to_owned()),
    }
}

fn check_resources(resources: &[Resource]) -> Result<(), String> {
    let (mut cpu, mut ram, mut disk) = (0, 0, 0);
    let positive = |what: &str, is: bool| if is { Ok(()) } else { Err(format!("Resource {what} must be above 0")) };
    for resource in resources {
        match resource {
            Resource::NumCpus(value) => {
                cpu += 1;
                positive("numCpus", *value > 0.0)?;
            }
            Resource::RamMb(value) => {
                ram += 1;
                positive("ramMb", *value > 0)?;
            }
            Resource::DiskMb(value) => {
                disk += 1;
                positive("diskMb", *value > 0)?;
            }
            Resource::NamedPort(_) => {}
            other => return Err(format!("Resource is not supported by this scheduler: {other:?}")),
        }
    }
    for (what, count) in [("numCpus", cpu), ("ramMb", ram), ("diskMb", disk)] {
        if count != 1 {
            return Err(format!("Resource {what} must be given once, not {count} times"));
        }
    }
    Ok(())
}

fn normalise(config: &mut TaskConfig) -> Result<(), String> {
    let tier = config.tier.get_or_insert_with(|| DEFAULT_TIER.to_owned());
    let production = match tier.as_str() {
        "preferred" => true,
        "preemptible" | "revocable" => false,
        other => return Err(format!("Invalid tier '{}' in TaskConfig.", shorten(other))),
    };
    if config.sla_policy.is_some() && !production {
        return Err(format!("Tier '{tier}' does not support SlaPolicy."));
    }
    config.production = Some(production);
    if config.mesos_fetcher_uris.as_ref().is_some_and(|uris| !uris.is_empty()) {
        return Err("Mesos Fetcher for individual jobs is disabled in this cluster.".to_owned());
    }
    config.mesos_fetcher_uris = Some(Vec::new());
    config.metadata.get_or_insert_default();
    if let Container::Mesos(container) = &mut config.container {
        container.volumes.get_or_insert_default();
    }
    if config.task_links.as_ref().is_none_or(BTreeMap::is_empty) {
        config.task_links = Some(links(&config.resources));
    }
    Ok(())
}

fn links(resources: &[Resource]) -> BTreeMap<String, String> {
    port_names(resources)
        .into_iter()
        .filter(|name| ["health", "http"].contains(&name.as_str()))
        .map(|name| (name.clone(), format!("http://%host%:%port:{name}%")))
        .collect()
}

/// Names of the ports that a task needs, sorted, each once.
pub fn port_names(resources: &[Resource]) -> Vec<String> {
    let mut names: Vec<String> = resources
        .iter()
        .filter_map(|resource| match resource {
            Resource::NamedPort(name) => Some(name.clone()),
            _ => None,
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

fn check_executor(config: &TaskConfig) -> Result<Job, String> {
    let Some(executor) = &config.executor_config else {
        return Err("Configuration may not be null".to_owned());
    };
    if executor.name != "AuroraExecutor" {
        let name = shorten(&executor.name);
        return Err(format!("Configuration for executor '{name}' doesn't exist."));
    }
    let data = executor.data.as_deref().unwrap_or_default();
    let program = thermos::parse(data).map_err(|error| error.to_string())?;
    let key = &config.job;
    program.check_belongs_to(&key.role, &key.environment, &key.name).map_err(|error| error.to_string())?;
    let ports = port_names(&config.resources).into_iter().map(|name| (name, 1)).collect();
    let trial = Binding { ports, ..Binding::default() };
    program.bind(&trial).map_err(|error| error.to_string())?;
    Ok(program)
}

#[cfg(test)]
mod tests {
    use aurora::types::{Constraint, ExecutorConfig};

    use super::*;

    fn description() -> JobConfiguration {
        let key = JobKey::new("redis", "prod", "cache");
        let data = r#"{"name":"cache","task":{"processes":[{"name":"a","cmdline":"run {{thermos.ports[health]}}"}]}}"#;
        let task_config = TaskConfig {
            is_service: true,
            job: key.clone(),
            executor_config: Some(ExecutorConfig { name: "AuroraExecutor".to_owned(), data: Some(data.to_owned()) }),
            resources: vec![
                Resource::NumCpus(0.5),
                Resource::RamMb(1),
                Resource::DiskMb(1),
                Resource::NamedPort("health".to_owned()),
            ],
            constraints: Vec::<Constraint>::new(),
            ..TaskConfig::default()
        };
        JobConfiguration { key, instance_count: 3, task_config, ..JobConfiguration::default() }
    }

    fn refused(change: impl FnOnce(&mut JobConfiguration)) -> String {
        let mut description = description();
        change(&mut description);
        accept(description).unwrap_err()
    }

    #[test]
    fn the_stored_configuration_is_filled_in() {
        let config = accept(description()).unwrap().0.task_config;
        assert_eq!((config.tier.as_deref(), config.production), (Some("preemptible"), Some(false)));
        let links = config.task_links.unwrap();
        assert_eq!(links, BTreeMap::from([("health".to_owned(), "http://%host%:%port:health%".to_owned())]));
        assert_eq!(config.mesos_fetcher_uris, Some(Vec::new()));
        let container = MesosContainer { image: None, volumes: Some(Vec::new()) };
        assert_eq!(config.container, Container::Mesos(container));
    }

    #[test]
    fn production_follows_the_tier() {
        let mut preferred = description();
        preferred.task_config.tier = Some("preferred".to_owned());
        preferred.task_config.production = Some(false);
        assert_eq!(accept(preferred).unwrap().0.task_config.production, Some(true));
        assert!(refused(|d| d.task_config.tier = Some("gold".to_owned())).contains("'gold'"));
    }

    #[test]
    fn instance_counts_are_limited() {
        for count in [0, -1, 4001] {
            assert!(refused(|d| d.instance_count = count).contains("between 1 and 4000"));
        }
    }

    #[test]
    fn keys_have_to_be_identifiers_of_a_known_environment() {
        let key = |role: &str, environment: &str| {
            let key = JobKey::new(role, environment, "cache");
            refused(|d| {
                d.key = key.clone();
                d.task_config.job = key;
            })
        };
        assert!(key("red/is", "prod").contains("role contains illegal characters"));
        assert!(key("", "prod").contains("role contains illegal characters"));
        assert!(key("redis", "production").contains("doesn't match"));
        assert!(check_key(&JobKey::new("r", "staging7", "n")).is_ok());
    }

    #[test]
    fn every_resource_is_given_once_and_above_0() {
        assert!(refused(|d| d.task_config.resources.clear()).contains("numCpus must be given once, not 0"));
        assert!(refused(|d| d.task_config.resources.push(Resource::RamMb(2))).contains("ramMb must be given once"));
        assert!(refused(|d| d.task_config.resources[0] = Resource::NumCpus(0.0)).contains("above 0"));
        assert!(refused(|d| d.task_config.resources.push(Resource::NumGpus(1))).contains("not supported"));
    }

    #[test]
    fn the_executor_and_its_data_are_checked() {
        let executor = |name: &str, data: &str| {
            let config = ExecutorConfig { name: name.to_owned(), data: Some(data.to_owned()) };
            refused(|d| d.task_config.executor_config = Some(config))
        };
        assert!(refused(|d| d.task_config.executor_config = None).contains("may not be null"));
        assert!(executor("Other", "{}").contains("executor 'Other' doesn't exist"));
        let unknown = r#"{"task":{"processes":[{"name":"a","cmdline":"x","retry":1}]}}"#;
        assert!(executor("AuroraExecutor", unknown).contains("task.processes[0].retry"));
        let port = r#"{"task":{"processes":[{"name":"a","cmdline":"{{thermos.ports[redis]}}"}]}}"#;
        assert!(executor("AuroraExecutor", port).contains("{{thermos.ports[redis]}}"));
        let other = r#"{"role":"x","task":{"processes":[{"name":"a","cmdline":"x"}]}}"#;
        assert!(executor("AuroraExecutor", other).contains("field role"));
    }
}
