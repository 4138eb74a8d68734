use super::*;

const KEYS: &[Key] = &[
    Key::value("cluster", "ROLE/ENV/JOB", "The cluster."),
    Key::value("redis.port", "PORT", "Redis' port.").or("6379"),
    Key::table("redis.config", "Settings passed through."),
    Key::value("timing.heartbeat", "DURATION", "Between words.").or("250ms"),
    Key::value("memory_max", "SIZE", "Most memory.").or("64mb"),
    Key::list("hosts", "HOST", "Hosts."),
    Key::switch("loud", "Says more."),
    Key::value("snapshots.uri", "URI", "Where dumps go."),
];

fn layers(text: &str) -> Layers {
    let mut layers = Layers::new(KEYS);
    layers.file(Path::new("a.toml"), text);
    layers
}

fn mistakes(layers: Layers) -> Vec<String> {
    layers.finish().expect_err("mistakes").0
}

#[test]
fn file_below_environment_below_flags() {
    let command = || flags(KEYS, clap::Command::new("test"));
    let matches =
        command().try_get_matches_from(["test", "--redis-port", "3", "--redis-config", "maxmemory=3gb", "--loud"]).unwrap();
    let mut layers =
        layers("cluster = 'a/b/c'\nmemory_max = 1024\n[redis]\nport = 1\n[redis.config]\nmaxmemory = '1gb'\nhz = 10\n");
    layers.environment(|name| match name {
        "AURORA_REDIS_REDIS_PORT" => Some("2".into()),
        "AURORA_REDIS_MEMORY_MAX" => Some("1mb".into()),
        "AURORA_REDIS_REDIS_CONFIG" => Some("maxmemory=2gb; hz=20".into()),
        "AURORA_REDIS_HOSTS" => Some("h1, h2".into()),
        _ => None,
    });
    for key in KEYS {
        for value in matches.get_many::<String>(key.name).into_iter().flatten() {
            layers.set(key, value, Origin::Flag(key.flag()));
        }
    }
    assert_eq!(layers.port("redis.port"), Some(3));
    assert_eq!(layers.bytes("memory_max"), 1 << 20);
    assert_eq!(layers.text("cluster").as_deref(), Some("a/b/c"));
    assert_eq!(layers.table("redis.config"), [("hz", "20"), ("maxmemory", "3gb")].map(|(k, v)| (k.into(), v.into())).into());
    assert_eq!(layers.list("hosts"), ["h1", "h2"]);
    assert!(layers.is_on("loud"));
    assert_eq!(layers.duration("timing.heartbeat"), Duration::from_millis(250));
    let effective = layers.finish().unwrap();
    let from = |key: &str| effective.0[key].from.to_string();
    assert_eq!(from("redis.port"), "--redis-port");
    assert_eq!(from("memory_max"), "AURORA_REDIS_MEMORY_MAX");
    assert_eq!(from("cluster"), "a.toml:1");
    assert_eq!(from("timing.heartbeat"), "default");
}

#[test]
fn every_mistake_is_named_with_place_key_value_and_what_is_allowed() {
    let mut layers = layers(
        "hosts = [['x']]\n\n[redis]\nport = 70000\ncolour = 'red'\n[timing]\nheartbeat = '5 parsecs'\n[weather]\nrain = true\n",
    );
    layers.set(&KEYS[6], "perhaps", Origin::Variable("AURORA_REDIS_LOUD".into()));
    layers.required("cluster", "role/env/job", |text| Ok::<_, String>(text.to_owned()));
    layers.port("redis.port");
    layers.duration("timing.heartbeat");
    layers.is_on("loud");
    layers.reject("memory_max", "must be above 1gb");
    let found = mistakes(layers);
    let expected = [
        "a.toml:1: hosts: is array; allowed is HOST",
        "a.toml:5: redis.colour: no such setting; known here: port, config",
        "a.toml:8: weather: no such setting; known here: cluster, redis, timing, memory_max, hosts, loud, snapshots",
        "cluster: not set; allowed is role/env/job; set it in the file, by --cluster or by AURORA_REDIS_CLUSTER",
        "a.toml:4: redis.port = \"70000\": it is out of range; allowed is a whole number from 1 to 65535",
        "a.toml:7: timing.heartbeat = \"5 parsecs\": 'parsecs' is not a unit of time; allowed is a time above 0 with its unit: ms, s, m or h, such as 250ms",
        "AURORA_REDIS_LOUD: loud = \"perhaps\": provided string was not `true` or `false`; allowed is true or false",
        "default: memory_max = \"64mb\": must be above 1gb",
    ];
    assert_eq!(found, expected, "{found:#?}");
}

#[test]
fn broken_toml_names_the_line_and_the_rest_is_still_checked() {
    let found = mistakes(layers("cluster = 'a/b/c'\nredis = = 5\nnonsense = 1\n"));
    assert!(found[0].starts_with("a.toml:2: not TOML: "), "{found:#?}");
    assert!(found.iter().any(|mistake| mistake.contains("nonsense: no such setting")), "{found:#?}");
}

#[test]
fn a_missing_named_file_and_an_empty_value_are_mistakes() {
    let mut layers = Layers::new(KEYS);
    layers.read_file(Path::new("/nonexistent/x.toml"));
    layers.set(&KEYS[0], "", Origin::Flag("cluster".into()));
    layers.text("cluster");
    let found = mistakes(layers);
    assert!(found[0].starts_with("/nonexistent/x.toml: cannot be read: "), "{found:#?}");
    assert_eq!(found[1], "--cluster: cluster = \"\": it is empty; allowed is any text");
}

#[test]
fn entries_of_free_form_tables_can_be_rejected() {
    let mut layers = layers("[redis.config]\nport = 1\nsave = ['x']\n");
    assert_eq!(layers.table("redis.config").len(), 1);
    layers.reject("redis.config.port", "is managed");
    assert_eq!(
        mistakes(layers),
        [
            "a.toml:3: redis.config.save: is array; allowed is a text, a number, true or false",
            "a.toml:2: redis.config.port = \"1\": is managed"
        ]
    );
}

#[test]
fn passwords_in_uris_are_not_shown() {
    let mut layers = layers("[snapshots]\nuri = 'hdfs://ann:secret@nn:9000/x@y'\n");
    assert_eq!(layers.text("snapshots.uri").as_deref(), Some("hdfs://ann:secret@nn:9000/x@y"));
    layers.reject("snapshots.uri", "is far away");
    assert_eq!(mistakes(layers), ["a.toml:2: snapshots.uri = \"hdfs://ann@nn:9000/x@y\": is far away"]);
}

#[test]
fn units() {
    for (text, ms) in [("250ms", 250), ("2s", 2000), ("1.5s", 1500), ("10m", 600_000), ("1h", 3_600_000), ("0", 0)] {
        assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        assert_eq!(parse_duration(&show_duration(Duration::from_millis(ms))), Ok(Duration::from_millis(ms)), "{text}");
    }
    for text in ["", "5", "s", "-1s", "1e9s", "1 year", "99999999999999999999999h", "1..2s"] {
        assert!(parse_duration(text).is_err(), "{text}");
    }
    for (text, bytes) in [("17", 17), ("1KB", 1024), ("64mb", 64 << 20), ("2g", 2 << 30), ("1 tb", 1 << 40)] {
        assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
    }
    for text in ["", "mb", "-1", "1.5gb", "1pb", "99999999999999999999", "99999999tb"] {
        assert!(parse_bytes(text).is_err(), "{text}");
    }
}

#[test]
fn names_of_variables_and_flags() {
    assert_eq!(KEYS[1].variable(), "AURORA_REDIS_REDIS_PORT");
    assert_eq!(KEYS[4].flag(), "memory-max");
}
