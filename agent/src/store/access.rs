//! How HDFS is reached: its configuration, and who we are there when it is secured. The same three keys for agents, controllers and the
//! command line.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::layers::{Key, Layers};

/// Key of [`Access::conf_dir`].
pub const CONF_DIR: Key =
    Key::value("hdfs.conf_dir", "DIR", "Directory of core-site.xml and hdfs-site.xml; by default HADOOP_CONF_DIR, or none");
/// Key of [`Kerberos::keytab`].
pub const KEYTAB: Key =
    Key::value("hdfs.keytab", "FILE", "Keytab for an HDFS secured by Kerberos; tickets are got from it and renewed as needed");
/// Key of [`Kerberos::principal`].
pub const PRINCIPAL: Key = Key::value("hdfs.principal", "NAME[@REALM]", "Whom the keytab is for; needs hdfs.keytab");

/// How HDFS is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Directory of core-site.xml and hdfs-site.xml; absent for `HADOOP_CONF_DIR`, or none.
    pub conf_dir: Option<PathBuf>,
    /// Who we are in a secured HDFS; absent for a ticket that somebody else keeps fresh (`KRB5CCNAME`), or no Kerberos.
    pub kerberos: Option<Kerberos>,
}

/// Who we are in a secured HDFS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kerberos {
    /// Name, with or without realm.
    pub principal: String,
    /// File of its keys.
    pub keytab: PathBuf,
}

impl Access {
    /// Reads and checks the three keys.
    pub fn read(layers: &mut Layers) -> Access {
        let dir = |text: &str| match std::fs::metadata(text) {
            Ok(found) if found.is_dir() => Ok(PathBuf::from(text)),
            Ok(_) => Err("it is no directory".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        let conf_dir = layers.optional(CONF_DIR.name, "a directory with core-site.xml and hdfs-site.xml", dir);
        let keytab = layers.optional(KEYTAB.name, "a keytab that this user can read, and not everybody", readable);
        let name = |text: &str| if text.contains(char::is_whitespace) { Err("it holds a blank") } else { Ok(text.to_owned()) };
        let principal = layers.optional(PRINCIPAL.name, "a name such as redis/host@EXAMPLE.COM", name);
        for (one, other) in [(KEYTAB.name, PRINCIPAL.name), (PRINCIPAL.name, KEYTAB.name)] {
            if layers.is_set(one) && !layers.is_set(other) {
                layers.reject(other, &format!("must be set, for {one} is"));
            }
        }
        let kerberos = keytab.zip(principal).map(|(keytab, principal)| Kerberos { principal, keytab });
        Access { conf_dir, kerberos }
    }
}

fn readable(file: &str) -> Result<PathBuf, String> {
    let opened = std::fs::File::open(file).map_err(|error| error.to_string())?;
    let mode = opened.metadata().map_err(|error| error.to_string())?.permissions().mode() & 0o777;
    if mode & 0o007 != 0 {
        return Err(format!("its mode {mode:04o} lets everybody use it; run chmod 0600 {file}"));
    }
    std::path::absolute(file).map_err(|error| error.to_string())
}
