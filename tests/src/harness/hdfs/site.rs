//! The configuration of its daemons and clients.

use super::*;

impl Hdfs {
    /// Writes everybody's configuration.
    pub(super) fn write_configuration(&self) -> Result<()> {
        for (i, daemon) in self.namenodes.iter().enumerate() {
            let name_dir = daemon.conf.with_file_name("name");
            let own = [
                ("dfs.namenode.name.dir", format!("file://{}", name_dir.display())),
                ("dfs.ha.namenode.id", format!("nn{}", i + 1)),
            ];
            self.configure(daemon, &own)?;
        }
        for daemon in &self.datanodes {
            let address = |i: usize| format!("{}:{}", self.host.address, daemon.ports[i].number());
            let own = [
                ("dfs.datanode.data.dir", format!("file://{}", daemon.conf.with_file_name("data").display())),
                ("dfs.datanode.address", address(0)),
                ("dfs.datanode.http.address", address(1)),
                ("dfs.datanode.ipc.address", address(2)),
            ];
            self.configure(daemon, &own)?;
        }
        Ok(())
    }

    fn configure(&self, daemon: &Daemon, own: &[(&str, String)]) -> Result<()> {
        // Without these (the jars hold none) the NameNode's HTTP server, and so its JMX, does not start.
        for page in ["hdfs", "datanode"] {
            std::fs::create_dir_all(daemon.conf.join("webapps").join(page))?;
        }
        let mut core = vec![
            ("fs.defaultFS", self.uri()),
            ("hadoop.tmp.dir", daemon.conf.with_file_name("tmp").display().to_string()),
            ("ipc.client.connect.max.retries", "3".into()),
        ];
        let secured = self.secured();
        if self.kdc.is_some() {
            core.push(("hadoop.security.authentication", "kerberos".into()));
            core.push(("hadoop.security.authorization", "true".into()));
            core.push(("hadoop.rpc.protection", self.protection().into()));
        }
        std::fs::write(daemon.conf.join("core-site.xml"), xml(&core))?;
        let site: Vec<(&str, String)> =
            self.site().into_iter().chain(self.names()).chain(secured).chain(own.iter().cloned()).collect();
        std::fs::write(daemon.conf.join("hdfs-site.xml"), xml(&site))?;
        let log = "log4j.rootLogger=INFO,A\nlog4j.appender.A=org.apache.log4j.ConsoleAppender\nlog4j.appender.A.target=System.err\n\
                   log4j.appender.A.layout=org.apache.log4j.PatternLayout\n\
                   log4j.appender.A.layout.ConversionPattern=%d{HH:mm:ss.SSS} %-5p %c{1} %m%n\n";
        std::fs::write(daemon.conf.join("log4j.properties"), log).context("log4j.properties")
    }

    /// Where the NameNodes are.
    fn names(&self) -> Vec<(&'static str, String)> {
        let address = |daemon: &Daemon, i: usize| format!("{}:{}", self.host.address, daemon.ports[i].number());
        match &self.namenodes[..] {
            [first, second] => vec![
                ("dfs.nameservices", NAMESERVICE.into()),
                ("dfs.ha.namenodes.pair", "nn1,nn2".into()),
                ("dfs.namenode.rpc-address.pair.nn1", address(first, 0)),
                ("dfs.namenode.rpc-address.pair.nn2", address(second, 0)),
                ("dfs.namenode.http-address.pair.nn1", address(first, 1)),
                ("dfs.namenode.http-address.pair.nn2", address(second, 1)),
                ("dfs.namenode.shared.edits.dir", format!("file://{}", first.conf.with_file_name("shared").display())),
                (
                    "dfs.client.failover.proxy.provider.pair",
                    "org.apache.hadoop.hdfs.server.namenode.ha.ConfiguredFailoverProxyProvider".into(),
                ),
                ("dfs.ha.fencing.methods", "shell(/bin/true)".into()),
                ("dfs.ha.tail-edits.period", "1s".into()),
                ("dfs.ha.log-roll.period", "5s".into()),
            ],
            [first, ..] => {
                vec![("dfs.namenode.rpc-address", address(first, 0)), ("dfs.namenode.http-address", address(first, 1))]
            }
            [] => unreachable!("there is one at least"),
        }
    }

    fn protection(&self) -> &'static str {
        match self.protection {
            Protection::Integrity => "integrity",
            Protection::Privacy => "privacy",
        }
    }

    /// What makes it a secured one: logins by Kerberos, and every byte to and from DataNodes signed or encrypted.
    fn secured(&self) -> Vec<(&'static str, String)> {
        let Some([daemons, _]) = &self.keytabs else { return Vec::new() };
        let keytab = daemons.display().to_string();
        vec![
            ("dfs.block.access.token.enable", "true".into()),
            ("dfs.data.transfer.protection", self.protection().into()),
            // Else a DataNode wants privileged ports, or TLS on its page.
            ("ignore.secure.ports.for.testing", "true".into()),
            ("dfs.namenode.kerberos.principal", format!("nn/localhost@{REALM}")),
            ("dfs.namenode.keytab.file", keytab.clone()),
            ("dfs.datanode.kerberos.principal", format!("dn/localhost@{REALM}")),
            ("dfs.datanode.keytab.file", keytab.clone()),
            ("dfs.web.authentication.kerberos.principal", format!("HTTP/localhost@{REALM}")),
            ("dfs.web.authentication.kerberos.keytab", keytab),
        ]
    }

    /// What NameNodes, DataNodes and clients share.
    fn site(&self) -> Vec<(&'static str, String)> {
        let mut site = vec![
            ("dfs.namenode.safemode.min.datanodes", self.datanodes.len().min(1).to_string()),
            ("dfs.datanode.hostname", self.host.address.clone()),
            ("dfs.replication", self.datanodes.len().clamp(1, 3).to_string()),
        ];
        let fixed = [
            ("dfs.namenode.handler.count", "4"),
            ("dfs.namenode.service.handler.count", "2"),
            ("dfs.datanode.handler.count", "2"),
            ("dfs.namenode.safemode.extension", "0"),
            ("dfs.namenode.edits.noeditlogchannelflush", "true"),
            ("dfs.namenode.fs-limits.min-block-size", "4096"),
            // A DataNode counts as dead after 2 x 1 s + 10 x 1 s.
            ("dfs.heartbeat.interval", "1"),
            ("dfs.namenode.heartbeat.recheck-interval", "1000"),
            ("dfs.namenode.stale.datanode.interval", "3000"),
            ("dfs.namenode.avoid.read.stale.datanode", "true"),
            ("dfs.namenode.avoid.write.stale.datanode", "true"),
            ("dfs.namenode.redundancy.interval.seconds", "1s"),
            ("dfs.namenode.datanode.registration.ip-hostname-check", "false"),
            // Small disks do: no gigabyte kept free, no room for a whole default block wanted.
            ("dfs.datanode.du.reserved", "0"),
            ("dfs.datanode.round-robin-volume-choosing-policy.additional-available-space", "0"),
        ];
        site.extend(fixed.map(|(name, value)| (name, value.to_owned())));
        site
    }
}

fn xml(properties: &[(&str, String)]) -> String {
    let property = |(name, value): &(&str, String)| format!("  <property><name>{name}</name><value>{value}</value></property>\n");
    format!("<configuration>\n{}</configuration>\n", properties.iter().map(property).collect::<String>())
}
