//! The switch to another user.

use nix::errno::Errno;
use runlane::task::{Enclosure, Identity, Namespaces, Sandbox, UserIds};

use super::{NOBODY, is_root, plain_users_spawner, prints, python, refused, spawner_by, status};

fn user(user: UserIds, gid: Option<u32>, groups: &[u32]) -> Sandbox {
    let identity = Identity { user, gid, groups: groups.to_vec() };
    Sandbox { identity: Some(identity), ..Sandbox::default() }
}

#[tokio::test]
async fn user_group_and_groups_are_switched_for_good() {
    if !is_root("switching the user") {
        return;
    }
    let sandbox = user(UserIds::One(12345), Some(23456), &[7, 5]);
    let field = status(&sandbox).await;
    assert_eq!(field("Uid"), "12345\t12345\t12345\t12345");
    assert_eq!(field("Gid"), "23456\t23456\t23456\t23456");
    assert_eq!(field("Groups"), "5 7");
    assert_eq!(field("CapPrm"), "0000000000000000");
    let back = "import os\nfor back in [lambda: os.setuid(0), lambda: os.setresuid(-1, 0, -1), \
                lambda: os.setgid(0), lambda: os.setgroups([0])]:\n try: back(); print('back')\n \
                except PermissionError: pass";
    assert_eq!(python(&sandbox, back, &[]).await, "");
}

#[tokio::test]
async fn a_user_without_a_group_gets_its_own_and_none_of_the_workers() {
    if !is_root("switching the user") {
        return;
    }
    let sandbox = user(UserIds::One(NOBODY), None, &[]);
    assert_eq!(prints(&sandbox, "id -u; id -G").await, "65534\n65534\n");
}

#[tokio::test]
async fn a_switch_that_is_not_possible_fails_its_step() {
    if !is_root("a plain user's switch") {
        return;
    }
    let (_directory, spawner) = plain_users_spawner();
    let refusal = refused(&spawner, &user(UserIds::One(1), None, &[])).await;
    assert_eq!(refusal, ("identity".to_owned(), Errno::EPERM as i32));
}

/// Why a policy with both is refused on hosts that need the user namespace.
#[tokio::test]
async fn in_a_user_namespace_there_is_no_other_user() {
    if !is_root("root without CAP_SYS_ADMIN") {
        return;
    }
    let (_directory, spawner) = spawner_by("setpriv --bounding-set=-sys_admin");
    let namespaces = Namespaces { user: true, ipc: true, ..Namespaces::default() };
    let enclosure = Enclosure { namespaces, ..Enclosure::default() };
    let sandbox = Sandbox { enclosure, ..user(UserIds::One(NOBODY), None, &[]) };
    assert_eq!(refused(&spawner, &sandbox).await.0, "identity");
}
