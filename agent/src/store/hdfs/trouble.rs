//! What the client library's errors mean for the caller.

use hdfs_native::HdfsError;

use crate::store::access::Access;
use crate::store::error::{Error, Trouble, first_line};

/// As [`remote`], for a call that may have logged in: what Kerberos says is told with who asked it, and what to look at.
pub(super) fn of_call(what: &'static str, path: &str, error: &HdfsError, access: &Access) -> Error {
    let mut told = remote(what, path, error);
    if let Error::Remote { why, .. } = &mut told
        && let Some(hint) = hint(error, access)
    {
        *why = format!("{why}; {hint}");
    }
    told
}

/// A call without an answer: its login may have waited for the KDC, which the client library does not tell.
pub(super) fn of_silence(mut error: Error, access: &Access) -> Error {
    if let Error::Remote { why, .. } = &mut error
        && access.kerberos.is_some()
    {
        why.push_str(": does the NameNode hang, or the KDC that krb5.conf (KRB5_CONFIG) names?");
    }
    error
}

fn hint(error: &HdfsError, access: &Access) -> Option<String> {
    let who = access.kerberos.as_ref().map(|k| format!("hdfs.principal {} with hdfs.keytab {}", k.principal, k.keytab.display()));
    let ticket = "a ticket in KRB5CCNAME; set hdfs.keytab and hdfs.principal to have tickets got and renewed".to_owned();
    match error {
        HdfsError::GSSAPIError(_, _, text) if is_kdc_away(text) => {
            Some("is the KDC up, and is it the one that krb5.conf (KRB5_CONFIG) names?".into())
        }
        HdfsError::GSSAPIError(_, _, text) if text.contains("realm") => {
            Some(format!("is the realm in krb5.conf (KRB5_CONFIG)? logged in as {}", who.unwrap_or(ticket)))
        }
        HdfsError::GSSAPIError(..) => Some(format!("logged in as {}", who.unwrap_or(ticket))),
        HdfsError::IOError(e) if e.kind() == std::io::ErrorKind::ConnectionAborted && access.kerberos.is_none() => {
            Some("a NameNode secured by Kerberos closes connections like that: set hdfs.keytab and hdfs.principal".into())
        }
        HdfsError::NoSASLMechanism => Some("the NameNode offers no way to log in that is known here".into()),
        _ => None,
    }
}

/// Whether Kerberos says that nobody answered, which is an outage rather than a refusal.
fn is_kdc_away(text: &str) -> bool {
    ["Cannot contact any KDC", "Cannot find KDC", "Cannot resolve network address"].iter().any(|known| text.contains(known))
}

pub(super) fn remote(what: &'static str, path: &str, error: &HdfsError) -> Error {
    let (trouble, why) = classify(error);
    Error::Remote { what, path: path.into(), trouble, why: first_line(&why) }
}

fn classify(error: &HdfsError) -> (Trouble, String) {
    use HdfsError as E;
    let trouble = match error {
        E::IOError(_) => Trouble::Unreachable,
        E::AlreadyExists(_) => Trouble::Exists,
        E::FileNotFound(_) => Trouble::Missing,
        E::InvalidPath(_) | E::InvalidArgument(_) | E::UrlParseError(_) | E::IsADirectoryError(_) | E::UnsupportedFeature(_) => {
            Trouble::Invalid
        }
        E::GSSAPIError(_, _, text) => {
            let trouble = if is_kdc_away(text) { Trouble::Unreachable } else { Trouble::Denied };
            return (trouble, format!("Kerberos: {text}"));
        }
        E::SASLError(_) | E::NoSASLMechanism => Trouble::Denied,
        E::RPCError(class, message) | E::FatalRPCError(class, message) => {
            let class = class.rsplit('.').next().unwrap_or_default();
            return (by_class(class, message), format!("{class}: {message}"));
        }
        _ => Trouble::Failed,
    };
    (trouble, error.to_string())
}

/// What an exception of the NameNode means for the caller.
fn by_class(class: &str, message: &str) -> Trouble {
    match class {
        "SafeModeException" | "StandbyException" | "RetriableException" | "RecoveryInProgressException" => Trouble::Busy,
        "NotReplicatedYetException" | "ObserverRetryOnActiveException" => Trouble::Busy,
        _ if message.contains("could only be written to") || message.contains("could only be replicated to") => Trouble::Busy,
        "AccessControlException" | "AuthorizationException" | "InvalidToken" => Trouble::Denied,
        "DSQuotaExceededException" | "NSQuotaExceededException" | "QuotaByStorageTypeExceededException" => Trouble::Full,
        "FileNotFoundException" => Trouble::Missing,
        "FileAlreadyExistsException" => Trouble::Exists,
        "InvalidPathException" | "ParentNotDirectoryException" | "PathComponentTooLongException" => Trouble::Invalid,
        "UnresolvedPathException" | "HadoopIllegalArgumentException" => Trouble::Invalid,
        _ => Trouble::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hdfs_says_is_told_apart() {
        let rpc = |class: &str, message: &str| HdfsError::RPCError(class.into(), format!("{message}\n\tat java.base/Some.frame"));
        let no_node = "File /x could only be written to 0 of the 1 minReplication nodes. There are 0 datanode(s) running";
        for (error, kind, retryable, definite) in [
            (rpc("org.apache.hadoop.hdfs.server.namenode.SafeModeException", "safe"), "busy", true, true),
            (rpc("org.apache.hadoop.ipc.StandbyException", "standby"), "busy", true, true),
            (rpc("java.io.IOException", no_node), "busy", true, true),
            (rpc("java.io.IOException", "something else"), "failed", true, false),
            (rpc("org.apache.hadoop.security.AccessControlException", "denied"), "denied", false, true),
            (rpc("org.apache.hadoop.hdfs.protocol.DSQuotaExceededException", "quota"), "full", false, true),
            (rpc("java.io.FileNotFoundException", "gone"), "missing", false, true),
            (rpc("org.apache.hadoop.fs.InvalidPathException", "path"), "invalid", false, true),
            (HdfsError::FileNotFound("/x".into()), "missing", false, true),
            (HdfsError::AlreadyExists("/x".into()), "exists", false, true),
            (HdfsError::IOError(std::io::ErrorKind::ConnectionRefused.into()), "unreachable", true, false),
            (HdfsError::DataTransferError("All DataNodes failed".into()), "failed", true, false),
        ] {
            let told = remote("rename", "/x", &error);
            assert_eq!((told.kind(), told.is_retryable(), told.is_definite()), (kind, retryable, definite), "{error}");
            assert!(!told.to_string().contains("java.base"), "a stack trace in {told}");
        }
    }
}
