//! Gates, tokens, and to whom they go.

use std::fs;

use super::{World, fixture_file};
use crate::common::Run;
use crate::common::hub_server::{Access, COMMIT};

#[test]
fn a_gated_model_says_where_to_ask_and_to_log_in() {
    let world = World::new();
    world.server.change("org/tiny", |repository| repository.access = Access::Gated("good"));
    let page = format!("ask for access at {}/org/tiny", world.server.endpoint);
    world.run(&["org/tiny"]).is_mistake(&[
        "org/tiny is gated",
        &page,
        "log in with `hf auth login`",
        "HF_TOKEN",
    ]);
    let run = Run::of(world.command(&["org/tiny"]).env("HF_TOKEN", "of-somebody-else"));
    run.is_mistake(&["org/tiny is gated", &page, "the account that was let in"]);
    Run::of(world.command(&["org/tiny"]).env("HF_TOKEN", "good")).exits(0);
}

#[test]
fn a_token_goes_to_the_hub_alone() {
    let world = World::new();
    world.server.change("org/tiny", |repository| repository.access = Access::Private("good"));
    world.run(&["org/tiny"]).is_mistake(&["no model 'org/tiny'", "if it is private"]);
    world.server.requests();

    // From the variable, and from where a login leaves it.
    for place in ["variable", "home/token", "elsewhere"] {
        let mut command = world.command(&["org/tiny"]);
        match place {
            "variable" => _ = command.env("HF_TOKEN", "good"),
            "elsewhere" => {
                world.folder.write(place, "good\n");
                command.env("HF_TOKEN_PATH", world.folder.at(place));
            }
            file => world.folder.write(file, "good\n"),
        }
        Run::of(&mut command).exits(0);
        let requests = world.server.requests();
        let (own, storage): (Vec<_>, Vec<_>) = requests.iter().partition(|request| request.to_hub);
        assert!(!storage.is_empty(), "nothing was redirected: {requests:?}");
        for request in own {
            assert_eq!(request.authorization.as_deref(), Some("Bearer good"), "{place}: {request:?}");
        }
        for request in storage {
            assert_eq!(request.authorization, None, "{place}: {request:?}");
        }
        let _ = fs::remove_file(world.folder.at("home/token"));
        fs::remove_dir_all(world.folder.at("home/hub")).unwrap();
    }
}

#[test]
fn a_token_that_the_hub_does_not_know_is_told_as_such() {
    let world = World::new();
    let run = Run::of(world.command(&["org/tiny"]).env("HF_TOKEN", "wrong"));
    let message = run.is_mistake(&["does not accept the token in HF_TOKEN", "hf auth login"]);
    assert!(!message.contains("wrong"), "{message}");
    let run = Run::of(world.command(&["org/tiny"]).env("HF_TOKEN", "two words"));
    let message = run.is_mistake(&["the token in HF_TOKEN has characters"]);
    assert!(!message.contains("two words"), "{message}");
    assert!(!format!("{:?}", world.hub().with_token("good")).contains("good"));
}

#[test]
fn a_renamed_repository_is_followed_with_the_token() {
    let world = World::new();
    world.server.rename("org/tiny", "org/new");
    world.server.change("org/new", |repository| repository.access = Access::Private("good"));
    let model = world.hub().with_token("good").open("org/tiny").unwrap();
    assert_eq!(model.config().unwrap(), fixture_file("config.json"));
    assert_eq!(model.read("model.safetensors").unwrap().unwrap(), fixture_file("model.safetensors"));
    assert_eq!(
        fs::read_to_string(world.in_cache("refs/main")).unwrap(),
        COMMIT,
        "under the name that was asked for"
    );
}
