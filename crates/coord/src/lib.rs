//! Membership, leader election and watches: etcd or in-process
