use aurora::types::Resource;
use serde_json::Value;

use super::*;

const SMALL: &str = "cluster = 'www/prod/cache'\ninstances = 3\n[resources]\nram = '4gb'\ndisk = '16gb'\n";

fn read(text: &str) -> Result<ClusterFile, Mistakes> {
    let mut layers = Layers::new(KEYS);
    layers.file(Path::new("cluster.toml"), text);
    ClusterFile::from_layers(layers)
}

fn around() -> Surroundings {
    Surroundings { zookeeper: "zk1:2181".into(), zookeeper_root: "/aurora-redis".into() }
}

fn data(file: &ClusterFile) -> Value {
    let job = file.job(&around(), file.instances);
    serde_json::from_str(&job.task_config.executor_config.unwrap().data.unwrap()).unwrap()
}

#[test]
fn a_small_file_makes_a_whole_job() {
    let file = read(SMALL).unwrap();
    assert_eq!(file.spec("ann", 5).save, DEFAULT_SAVE);
    assert_eq!(file.spec("ann", 5).instances, 3);
    let job = file.job(&around(), 3);
    assert_eq!((job.key.to_string().as_str(), job.instance_count), ("www/prod/cache", 3));
    assert!(job.task_config.is_service);
    assert_eq!(job.task_config.constraints, [Constraint { name: "host".into(), constraint: TaskConstraint::Limit(1) }]);
    assert!(job.task_config.resources.contains(&Resource::RamMb(4096)));
    assert!(job.task_config.resources.contains(&Resource::NamedPort("health".into())));
    let data = data(&file);
    assert_eq!(data["task"]["resources"]["ram"], 4u64 << 30);
    assert_eq!(
        data["task"]["processes"][0]["cmdline"],
        "exec /usr/bin/aurora-redis-agent --zookeeper zk1:2181 --zookeeper-root /aurora-redis --cluster www/prod/cache --instance \
         {{mesos.instance}} --task-id {{thermos.task_id}} --redis-port {{thermos.ports[redis]}} --http-port {{thermos.ports[health]}} \
         --host-name {{mesos.hostname}}"
    );
    assert_eq!(data["announce"]["primary_port"], "redis");
}

#[test]
fn everything_can_be_said() {
    let text = "cluster = 'www/prod/cache'\ninstances = 5\nzookeeper = 'zk:1'\nsecret_file = '/etc/my secret'\nsave = 'none'\n\
        [aurora]\ncontact = 'ops@example.com'\npriority = 7\n[aurora.constraints]\nrack = '!r1,r2'\nhost = 'limit:2'\n\
        [resources]\ncpu = 0.5\nram = '100mb'\ndisk = '1gb'\n[agent]\nfetch = 'hdfs dfs -get /a .'\nprogram = './a'\n\
        [redis]\nserver = '/opt/redis-server'\n[redis.config]\nmaxmemory = '50mb'\nlatency-monitor-threshold = 10\n\
        [snapshots]\nuri = 'hdfs://nn:9000/redis'\n[health]\ngrace = '1.5s'\n";
    let file = read(text).unwrap();
    assert_eq!(file.save, "");
    let data = data(&file);
    let command = data["task"]["processes"][1]["cmdline"].as_str().unwrap();
    assert!(command.starts_with("exec ./a --zookeeper zk:1 --zookeeper-root /aurora-redis "), "{command}");
    let flags = "--host-name {{mesos.hostname}} --secret-file '/etc/my secret' --snapshots-uri hdfs://nn:9000/redis --redis-server \
                 /opt/redis-server --redis-config latency-monitor-threshold=10 --redis-config maxmemory=50mb";
    assert!(command.ends_with(flags), "{command}");
    assert_eq!(data["task"]["constraints"][0]["order"][0], "fetch");
    assert_eq!(data["health_check_config"]["initial_interval_secs"], 1.5);
    let constraints = file.job(&around(), 5).task_config.constraints;
    let values = ValueConstraint { negated: true, values: vec!["r1".into(), "r2".into()] };
    assert_eq!(constraints[1], Constraint { name: "rack".into(), constraint: TaskConstraint::Value(values) });
}

#[test]
fn all_mistakes_are_named_at_once() {
    let text = "cluster = 'www/cache'\ninstances = 0\nsave = '900'\ncolour = 'red'\nsecret_file = '/x/{{y}}'\n\
        [aurora.constraints]\nhost = 'limit:x'\n[resources]\ncpu = -1\nram = '4kb'\n\
        [redis]\nserver_uri = 'hdfs://nn/x'\n[redis.config]\n'max memory' = 1\nport = 7\nsaved = \"1\\nport 6379\"\n[snapshots]\nuri = 's3://x'\n\
        [health]\ntimeout = '1m'\n";
    let found = read(text).expect_err("mistakes").0;
    for part in [
        "cluster.toml:1: cluster = \"www/cache\": it has not three parts",
        "cluster.toml:2: instances = \"0\": it is out of range; allowed is a whole number from 1 to 1000",
        "cluster.toml:3: save = \"900\"",
        "cluster.toml:4: colour: no such setting",
        "cluster.toml:5: secret_file = \"/x/{{y}}\": the executor would take '{{' for a template",
        "cluster.toml:7: aurora.constraints.host = \"limit:x\"",
        "cluster.toml:9: resources.cpu = \"-1\"",
        "cluster.toml:10: resources.ram = \"4kb\": it is too small",
        "resources.disk: not set",
        "redis.server_sha256: not set, but redis.server_uri is",
        "redis.config.port = \"7\": managed by the agent: ",
        "redis.config.max memory = \"1\": a Redis setting has a name of letters",
        "redis.config.saved = \"1\\nport 6379\": a value must be one line",
        "snapshots.uri = \"s3://x\"",
        "health.timeout = \"1m\": must not be longer than health.interval",
    ] {
        assert!(found.iter().any(|line| line.contains(part)), "{part} in {found:#?}");
    }
    assert_eq!(found.len(), 15, "{found:#?}");
}

#[test]
fn a_missing_file_is_named() {
    let found = ClusterFile::load(Path::new("/nonexistent/cluster.toml")).expect_err("missing").0;
    assert!(found[0].starts_with("/nonexistent/cluster.toml: cannot be read: "), "{found:?}");
}
