//! The client in use, and the next one when it let a call pass.
//!
//! A connection to a NameNode that hangs may never answer again, and the client library waits for it: only another client helps. Of several
//! NameNodes that one asks the next first, for a client always begins at the first of its configuration.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hdfs_native::{Client, ClientBuilder};

use super::Settings;

/// The client in use.
pub(in crate::store) struct Clients {
    settings: Settings,
    /// Names of the nameservice's NameNodes, as configured; absent where the address is one NameNode's.
    namenodes: Option<String>,
    current: Mutex<(Number, Client)>,
}

/// Which client: how many there were before.
pub(in crate::store) type Number = usize;

impl Clients {
    /// Reads the configuration; connects only at the first call.
    pub fn new(settings: Settings) -> hdfs_native::Result<Clients> {
        let client = build(&settings, None)?;
        let namenodes = conf_dir(&settings).and_then(|dir| configured(&dir, &key(&settings)));
        Ok(Clients { settings, namenodes, current: Mutex::new((0, client)) })
    }

    /// How many NameNodes there are to ask.
    pub fn namenodes(&self) -> usize {
        self.namenodes.as_ref().map_or(1, |names| names.split(',').count())
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub fn current(&self) -> (Number, Client) {
        self.lock().clone()
    }

    /// Puts another client in the place of this one, which let a call pass; nothing to do if that has been done.
    pub fn replace(&self, number: Number) {
        let mut current = self.lock();
        if current.0 == number
            && let Ok(client) = build(&self.settings, self.namenodes.as_ref().map(|names| turned(names, number + 1)))
        {
            *current = (number + 1, client);
        }
    }

    fn lock(&self) -> MutexGuard<'_, (Number, Client)> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The key of the NameNodes' names.
fn key(settings: &Settings) -> String {
    format!("dfs.ha.namenodes.{}", settings.url.trim_start_matches("hdfs://"))
}

/// A client that asks the NameNodes in this order, or in that of its configuration.
fn build(settings: &Settings, order: Option<String>) -> hdfs_native::Result<Client> {
    let mut config = vec![
        ("dfs.client.failover.max.attempts".to_owned(), "4".to_owned()),
        ("dfs.client.failover.sleep.base.millis".into(), "200".into()),
        ("dfs.client.failover.sleep.max.millis".into(), "2000".into()),
        ("dfs.client.socket-timeout".into(), "10000".into()),
        // Without it one DataNode lost in mid-block fails the file even though the other copies are well.
        ("dfs.client.block.write.replace-datanode-on-failure.best-effort".into(), "true".into()),
    ];
    config.extend(order.map(|names| (key(settings), names)));
    if settings.access.kerberos.is_some() {
        config.push(("hadoop.security.authentication".into(), "kerberos".into()));
    }
    let mut builder = ClientBuilder::new().with_url(&settings.url).with_config(config);
    if let Some(dir) = &settings.access.conf_dir {
        builder = builder.with_config_dir(dir.to_string_lossy());
    }
    if let Some(kerberos) = &settings.access.kerberos {
        let keytab = format!("FILE:{}", kerberos.keytab.display());
        builder = builder.with_kerberos_principal(&kerberos.principal).with_kerberos_keytab(keytab);
    }
    if let Some(user) = &settings.user {
        builder = builder.with_user(user);
    }
    builder.build()
}

/// Where the client library looks.
fn conf_dir(settings: &Settings) -> Option<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HADOOP_HOME")?).join("etc/hadoop"));
    settings.access.conf_dir.clone().or_else(|| std::env::var_os("HADOOP_CONF_DIR").map(PathBuf::from)).or_else(home)
}

/// A property's value; absent also where the files cannot be read, which the client library tells.
fn configured(dir: &Path, key: &str) -> Option<String> {
    // The second one wins.
    ["hdfs-site.xml", "core-site.xml"].into_iter().find_map(|file| {
        let text = std::fs::read_to_string(dir.join(file)).ok()?;
        let tree = roxmltree::Document::parse(&text).ok()?;
        let child = |property: roxmltree::Node, name: &str| {
            let found = property.children().find(|n| n.has_tag_name(name));
            found.and_then(|n| n.text().map(str::to_owned))
        };
        let mut properties = tree.root_element().children().filter(|n| n.has_tag_name("property"));
        let found = properties.find(|p| child(*p, "name").as_deref() == Some(key))?;
        child(found, "value")
    })
}

/// The names with another one first each time.
fn turned(names: &str, times: usize) -> String {
    let mut names: Vec<&str> = names.split(',').collect();
    let by = times % names.len();
    names.rotate_left(by);
    names.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_begins_at_another_namenode() {
        let dir = std::env::temp_dir().join(format!("hdfs-conf-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let site = "<?xml version=\"1.0\"?>\n<!-- <name>dfs.ha.namenodes.ns</name> -->\n<configuration>\n<property><name>other</name><value>x</value></property>\n\
                    <property>\n  <name>dfs.ha.namenodes.ns</name>\n  <value>nn1,nn2,nn3</value>\n</property></configuration>";
        std::fs::write(dir.join("hdfs-site.xml"), site).unwrap();
        std::fs::write(dir.join("core-site.xml"), "not XML").unwrap();
        let names = configured(&dir, "dfs.ha.namenodes.ns").unwrap();
        let orders: Vec<String> = (0..4).map(|times| turned(&names, times)).collect();
        assert_eq!(orders, ["nn1,nn2,nn3", "nn2,nn3,nn1", "nn3,nn1,nn2", "nn1,nn2,nn3"]);
        assert_eq!(configured(&dir, "dfs.ha.namenodes.other"), None);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn only_the_client_that_let_a_call_pass_is_replaced() {
        let settings = Settings { url: "hdfs://127.0.0.1:1".into(), access: Default::default(), user: None };
        let clients = Clients::new(settings).unwrap();
        clients.replace(0);
        // Told by another call of the same client.
        clients.replace(0);
        assert_eq!(clients.current().0, 1);
    }
}
