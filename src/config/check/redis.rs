//! Keys of `[redis]` that cannot stand together.

use crate::config::problem::Problems;
use crate::config::spec::{Config, RedisSpec};
use crate::redis::Node;

pub fn contradictions(config: &Config, problems: &mut Problems) {
    let Some(redis) = config.redis.as_ref().filter(|redis| redis.origin.sound) else {
        return;
    };
    kinds(redis, problems);
    likeness(redis, problems);
    credentials(redis, problems);
    tls(redis, problems);
}

fn kinds(redis: &RedisSpec, problems: &mut Problems) {
    let Some(cluster) = &redis.cluster else {
        return;
    };
    if **cluster && redis.sentinel.is_some() {
        problems.note(
            cluster,
            "cluster = true beside sentinel; expected one of them",
        );
    }
    if !**cluster && redis.sentinel.is_none() && redis.nodes.len() > 1 {
        let message = format!(
            "cluster = false with {} nodes; expected one node, or sentinel",
            redis.nodes.len()
        );
        problems.note(cluster, message);
    }
}

/// What the nodes say beside their addresses is said of all of them.
fn likeness(redis: &RedisSpec, problems: &mut Problems) {
    let beside = |node: &Node| {
        (
            node.tls,
            node.database,
            node.username.clone(),
            node.password.clone(),
        )
    };
    for (index, node) in redis.nodes.iter().enumerate().skip(1) {
        if beside(node) != beside(&redis.nodes[0]) {
            let message = format!(
                "node {} differs from the first in TLS, user, password or database; expected the same of all",
                **node
            );
            problems.note(node, message);
        }
        let twice = |other: &Node| (&other.host, other.port) == (&node.host, node.port);
        if redis.nodes[..index].iter().any(|other| twice(other)) {
            problems.note(node, format!("duplicate node {}; expected it once", **node));
        }
    }
}

fn credentials(redis: &RedisSpec, problems: &mut Problems) {
    if let (Some(username), None) = (&redis.username, &redis.password) {
        problems.note(
            username,
            "username without password; expected both, or password alone",
        );
    }
    let in_nodes = redis.nodes.iter().any(|node| node.password.is_some());
    if let Some(password) = redis.password.as_ref().filter(|_| in_nodes)
        && redis.sentinel.is_none()
    {
        problems.note(
            password,
            "password beside the one in nodes; expected one of them",
        );
    }
}

fn tls(redis: &RedisSpec, problems: &mut Problems) {
    let files = [
        ("ca", &redis.ca),
        ("certificate", &redis.certificate),
        ("key", &redis.key),
    ];
    let plaintext = !redis.nodes.iter().any(|node| node.tls);
    for (name, file) in files {
        if let Some(file) = file.as_ref().filter(|_| plaintext) {
            let message = format!("{name} without TLS; expected nodes with rediss://");
            problems.note(file, message);
        }
    }
    match (&redis.certificate, &redis.key) {
        (Some(certificate), None) => problems.note(
            certificate,
            "certificate without key; expected both or none",
        ),
        (None, Some(key)) => problems.note(key, "key without certificate; expected both or none"),
        _ => {}
    }
}
