//! The Aurora job of a cluster: what the scheduler gets, and in it what the executor gets. Pure.

use std::time::Duration;

use aurora::types::{ExecutorConfig, Identity, JobConfiguration, JobKey, Resource, TaskConfig};
use serde_json::{Value, json};

use super::ClusterFile;

/// Where the agents find the cluster's state: what the file leaves to the command line.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// ZooKeeper's connect string.
    pub zookeeper: String,
    /// Node below which all clusters keep their state.
    pub zookeeper_root: String,
}

impl ClusterFile {
    /// The job, with `instances` instances.
    pub fn job(&self, around: &Surroundings, instances: u32) -> JobConfiguration {
        let key: JobKey = self.cluster.parse().expect("the cluster was parsed by the same rule");
        let executor = ExecutorConfig { name: "AuroraExecutor".into(), data: Some(self.executor_data(&key, around).to_string()) };
        let task = TaskConfig {
            priority: self.priority,
            max_task_failures: 1,
            owner: Some(Identity { user: key.role.clone() }),
            constraints: self.constraints.clone(),
            contact_email: self.contact.clone(),
            executor_config: Some(executor),
            job: key,
            tier: Some(self.tier.clone()),
            resources: vec![
                Resource::NumCpus(self.cpu),
                Resource::RamMb(self.ram_mb),
                Resource::DiskMb(self.disk_mb),
                Resource::NamedPort("redis".into()),
                Resource::NamedPort("health".into()),
            ],
            ..TaskConfig::default()
        };
        JobConfiguration::service(task, i32::try_from(instances).unwrap_or(i32::MAX))
    }

    /// What the Thermos executor runs: the agent as a daemon, which it starts again in the same sandbox, beside its dump.
    fn executor_data(&self, key: &JobKey, around: &Surroundings) -> Value {
        let process = |name: &str, cmdline: String, daemon: bool, max_failures: u32, min_duration: u32| {
            json!({"name": name, "cmdline": cmdline, "daemon": daemon, "max_failures": max_failures, "min_duration": min_duration,
                   "ephemeral": false, "final": false})
        };
        let agent = process("agent", self.agent_command(around), true, 0, 5);
        let (processes, order) = match &self.fetch {
            Some(fetch) => (vec![process("fetch", fetch.clone(), false, 5, 15), agent], json!([{"order": ["fetch", "agent"]}])),
            None => (vec![agent], json!([])),
        };
        json!({
            "name": key.name, "role": key.role, "environment": key.environment, "cluster": self.aurora_cluster,
            "service": true, "tier": self.tier, "max_task_failures": 1, "priority": self.priority, "production": false,
            "cron_collision_policy": "KILL_EXISTING", "enable_hooks": false, "contact": self.contact.clone().unwrap_or_default(),
            "announce": {"primary_port": "redis", "portmap": {}},
            "health_check_config": {
                "health_checker": {"http": {"endpoint": "/health", "expected_response": "ok", "expected_response_code": 0}},
                "initial_interval_secs": seconds(self.grace), "interval_secs": seconds(self.interval),
                "timeout_secs": seconds(self.timeout), "max_consecutive_failures": self.failures, "min_consecutive_successes": 1,
            },
            "lifecycle": {"http": {
                "port": "health", "graceful_shutdown_endpoint": "/quitquitquit", "shutdown_endpoint": "/abortabortabort",
                "graceful_shutdown_wait_secs": whole_seconds(self.quit_wait), "shutdown_wait_secs": whole_seconds(self.abort_wait),
            }},
            "task": {
                "name": key.name, "max_failures": 1, "max_concurrency": 0, "finalization_wait": 30, "constraints": order,
                "resources": {"cpu": self.cpu, "ram": self.ram_mb << 20, "disk": self.disk_mb << 20, "gpu": 0},
                "processes": processes,
            },
        })
    }

    /// The agent's command line. `exec`: the executor's signals must reach the agent and not a shell around it.
    fn agent_command(&self, around: &Surroundings) -> String {
        let zookeeper = self.zookeeper.as_ref().unwrap_or(&around.zookeeper);
        let root = self.zookeeper_root.as_ref().unwrap_or(&around.zookeeper_root);
        let mut command = format!(
            "exec {} --zookeeper {} --zookeeper-root {} --cluster {} --instance {{{{mesos.instance}}}} --task-id {{{{thermos.task_id}}}} \
             --redis-port {{{{thermos.ports[redis]}}}} --http-port {{{{thermos.ports[health]}}}} --host-name {{{{mesos.hostname}}}}",
            quote(&self.program),
            quote(zookeeper),
            quote(root),
            quote(&self.cluster),
        );
        for (flag, value) in &self.passed {
            command += &format!(" --{flag} {}", quote(value));
        }
        for (name, value) in &self.redis_config {
            command += &format!(" --redis-config {}", quote(&format!("{name}={value}")));
        }
        command
    }
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

fn whole_seconds(time: Duration) -> u64 {
    time.as_secs_f64().ceil() as u64
}

/// One word for the shell.
fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text.into() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_stays_one_word() {
        for text in ["a/b:1,c", "", "a b", "it's", "$(reboot)", "`x`", "a;b&c|d", "\"", "\\", "*"] {
            let printed =
                std::process::Command::new("bash").arg("-c").arg(format!("printf '%s' {}", quote(text))).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&printed.stdout), text);
        }
    }
}
