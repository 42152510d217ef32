//! Mounts of the host that a sandbox must not loosen.

use runlane::task::{Enclosure, Mounts, Namespaces, Sandbox};

use super::{is_root, open_directory, run_by, shell, spawner_by};

#[tokio::test]
async fn what_the_host_has_made_read_only_stays_so_below_and_at_a_writable_path() {
    if !is_root("mounts of the host") {
        return;
    }
    let (_directory, path) = open_directory();
    let place = path.display();
    // A host of its own: nobody else sees these mounts.
    let host = format!(
        "unshare -m sh -c 'mount -t tmpfs none {place} && mkdir {place}/ro && \
         mount -t tmpfs none {place}/ro && mount -o remount,bind,ro {place}/ro && exec \"$@\"' sh"
    );
    let (_launcher, spawner) = spawner_by(&host);
    let script =
        format!("touch {place}/x && echo open; touch {place}/ro/x 2>/dev/null && echo ro; true");
    for read_write in [path.clone(), path.join("ro")] {
        let expected = if read_write == path { "open\n" } else { "" };
        let mounts =
            Mounts { read_only_root: true, read_write: vec![read_write], ..Mounts::default() };
        let namespaces = Namespaces { mount: true, ..Namespaces::default() };
        let enclosure = Enclosure { namespaces, mounts, ..Enclosure::default() };
        let (mark, plan) = shell(&Sandbox { enclosure, ..Sandbox::default() }, &script);
        assert_eq!(run_by(&spawner, &mark, &plan).await.stdout, expected);
    }
}
