//! A hub on this machine: what the Hugging Face hub answers to a client, with the headers it sends and the faults a network has.
//!
//! Large files are redirected to a second server, as the hub does to its storage. Both write down every request.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::json;

/// From this size on a file is large: it lies on the storage server.
pub const LARGE: usize = 4096;

/// The commit of every branch, unless a test says otherwise.
pub const COMMIT: &str = "3d8c2b5aa1f04ce9937be1d6a3f0c1d2e4b59687";

/// A request, as a server saw it.
#[derive(Debug, Clone)]
pub struct Request {
    /// Whether it came to the hub itself, or to its storage.
    pub to_hub: bool,
    pub method: String,
    pub path: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
}

/// What goes wrong with the bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// Each answer breaks off after so many bytes.
    Cut(usize),
    /// The same, and the server does not know ranges: it always begins at the beginning.
    CutWithoutRanges(usize),
    /// It knows no ranges, though nothing breaks off.
    NoRanges,
    /// The connection stays open, and nothing comes.
    Silence,
    /// The file is shorter than the hub says.
    Short,
    /// It is longer.
    Long,
}

/// Who may have a repository.
#[derive(Debug, Clone, PartialEq)]
pub enum Access {
    Everyone,
    /// Nobody else knows that it is there.
    Private(&'static str),
    /// Everybody sees the list of its files.
    Gated(&'static str),
}

#[derive(Debug, Clone)]
pub struct Repository {
    pub commit: String,
    /// Branches beside `main`, all at the same commit.
    pub branches: Vec<&'static str>,
    pub files: BTreeMap<String, Vec<u8>>,
    pub access: Access,
}

#[derive(Default)]
struct State {
    repositories: BTreeMap<String, Repository>,
    moved: BTreeMap<String, String>,
    faults: BTreeMap<String, (Fault, usize)>,
    /// Answers to a path, instead of all else: the head and the body, as they are sent.
    fixed: BTreeMap<String, String>,
    requests: Vec<Request>,
    storage: String,
}

/// The hub and its storage.
pub struct HubServer {
    pub endpoint: String,
    state: Arc<Mutex<State>>,
}

impl HubServer {
    /// Starts both servers on free ports. Their threads end with the process.
    pub fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let listen = |is_hub: bool| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = format!("http://{}", listener.local_addr().unwrap());
            let state = Arc::clone(&state);
            thread::spawn(move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    let state = Arc::clone(&state);
                    // A client that hangs up is one of the cases.
                    thread::spawn(move || _ = answer(stream, is_hub, &state));
                }
            });
            address
        };
        let (endpoint, storage) = (listen(true), listen(false));
        state.lock().unwrap().storage = storage;
        Self { endpoint, state }
    }

    /// A repository that everyone may have.
    pub fn add<'a>(&self, name: &str, files: impl IntoIterator<Item = (&'a str, Vec<u8>)>) {
        let repository = Repository {
            commit: COMMIT.into(),
            branches: Vec::new(),
            files: files.into_iter().map(|(file, bytes)| (file.to_owned(), bytes)).collect(),
            access: Access::Everyone,
        };
        self.state.lock().unwrap().repositories.insert(name.into(), repository);
    }

    /// Changes a repository.
    pub fn change(&self, name: &str, change: impl FnOnce(&mut Repository)) {
        change(self.state.lock().unwrap().repositories.get_mut(name).unwrap());
    }

    /// The repository was renamed.
    pub fn rename(&self, old: &str, new: &str) {
        let mut state = self.state.lock().unwrap();
        let repository = state.repositories.remove(old).unwrap();
        state.repositories.insert(new.into(), repository);
        state.moved.insert(old.into(), new.into());
    }

    /// Something goes wrong so many times when that file's bytes are sent.
    pub fn fault(&self, file: &str, fault: Fault, times: usize) {
        self.state.lock().unwrap().faults.insert(file.into(), (fault, times));
    }

    /// Answers every request whose path contains `part` with that text, head and body.
    pub fn fix(&self, part: &str, answer: &str) {
        self.state.lock().unwrap().fixed.insert(part.into(), answer.into());
    }

    /// Every request since this was called last.
    pub fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }
}

/// The name of a file's content: the same bytes have the same.
pub fn etag(bytes: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    format!("{:016x}", hasher.finish()).repeat(if bytes.len() < LARGE { 2 } else { 4 })
}

fn answer(stream: TcpStream, is_hub: bool, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(()) };
    let mut request = Request { to_hub: is_hub, method, path, range: None, authorization: None };
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "range" => request.range = Some(value.trim().into()),
            "authorization" => request.authorization = Some(value.trim().into()),
            _ => {}
        }
    }
    let reply = {
        let mut state = state.lock().unwrap();
        state.requests.push(request.clone());
        reply(&mut state, &request)
    };
    let mut stream = stream;
    stream.write_all(reply.head.as_bytes())?;
    if request.method != "HEAD" {
        stream.write_all(&reply.body)?;
    }
    stream.flush()?;
    if reply.is_silent {
        // Longer than any test waits; ends with the client's hanging up.
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let _ = stream.read(&mut [0]);
    }
    Ok(())
}

struct Reply {
    head: String,
    body: Vec<u8>,
    is_silent: bool,
}

fn plain(status: &str, headers: &[(&str, String)], body: impl Into<Vec<u8>>) -> Reply {
    let body = body.into();
    let mut head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !headers.iter().any(|(name, _)| *name == "Content-Length") {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    Reply { head: head + "\r\n", body, is_silent: false }
}

fn error(status: &str, code: &str, message: &str) -> Reply {
    plain(status, &[("X-Error-Code", code.into()), ("X-Error-Message", message.into())], "")
}

fn reply(state: &mut State, request: &Request) -> Reply {
    if let Some((_, answer)) = state.fixed.iter().find(|(part, _)| request.path.contains(part.as_str())) {
        return Reply { head: answer.clone(), body: Vec::new(), is_silent: false };
    }
    if !request.to_hub {
        return from_storage(state, request);
    }
    for (old, new) in &state.moved {
        if request.path.contains(old.as_str()) {
            let location = request.path.replacen(old.as_str(), new, 1);
            return plain("307 Temporary Redirect", &[("Location", location)], "moved");
        }
    }
    // /api/models/org/name/revision/main and /org/name/resolve/main/onnx/model.onnx
    let path = request.path.trim_start_matches('/');
    let (name, revision, file) = match path.strip_prefix("api/models/") {
        Some(path) => match path.split_once("/revision/") {
            Some((name, revision)) => (name, revision.replace("%2F", "/"), None),
            None => (path, "main".into(), None),
        },
        None => {
            match path.split_once("/resolve/").and_then(|(name, rest)| Some((name, rest.split_once('/')?))) {
                Some((name, (revision, file))) => {
                    (name, revision.replace("%2F", "/"), Some(file.replace("%20", " ")))
                }
                None => return plain("404 Not Found", &[], ""),
            }
        }
    };
    let has = |token: &str| request.authorization.as_deref() == Some(&format!("Bearer {token}"));
    if has("wrong") {
        return error("401 Unauthorized", "", "Invalid credentials in Authorization header");
    }
    let known = state.repositories.get(name);
    let Some(repository) =
        known.filter(|known| !matches!(known.access, Access::Private(token) if !has(token)))
    else {
        return match request.authorization {
            Some(_) => error("404 Not Found", "RepoNotFound", "Repository not found"),
            None => error("401 Unauthorized", "RepoNotFound", "Invalid username or password."),
        };
    };
    if revision != "main"
        && revision != repository.commit
        && !repository.branches.contains(&revision.as_str())
    {
        return error("404 Not Found", "RevisionNotFound", &format!("Invalid rev id: {revision}"));
    }
    let Some(file) = file else {
        let siblings: Vec<_> = repository.files.keys().map(|file| json!({ "rfilename": file })).collect();
        let info = json!({ "id": name, "sha": repository.commit, "private": false, "siblings": siblings });
        return plain("200 OK", &[("Content-Type", "application/json".into())], info.to_string());
    };
    if let Access::Gated(token) = repository.access
        && !has(token)
    {
        let status = if request.authorization.is_some() { "403 Forbidden" } else { "401 Unauthorized" };
        return error(status, "GatedRepo", "Access to this model is restricted.");
    }
    let Some(bytes) = repository.files.get(&file) else {
        return error("404 Not Found", "EntryNotFound", "Entry not found");
    };
    let commit = ("X-Repo-Commit", repository.commit.clone());
    let tag = format!("\"{}\"", etag(bytes));
    if bytes.len() < LARGE {
        let bytes = bytes.clone();
        return content(state, request, &file, &bytes, vec![commit, ("ETag", tag)]);
    }
    let headers = [
        commit,
        ("ETag", format!("\"{COMMIT}\"")),
        ("X-Linked-Etag", tag),
        ("X-Linked-Size", bytes.len().to_string()),
        ("Location", format!("{}/{name}/{file}?key=secret", state.storage).replace(' ', "%20")),
    ];
    plain("302 Found", &headers, "Found. Redirecting to the storage")
}

fn from_storage(state: &mut State, request: &Request) -> Reply {
    let path = request.path.trim_start_matches('/').trim_end_matches("?key=secret").replace("%20", " ");
    let found = state.repositories.iter().find_map(|(name, repository)| {
        let file = path.strip_prefix(name.as_str())?.strip_prefix('/')?;
        Some((file.to_owned(), repository.files.get(file)?.clone()))
    });
    let Some((file, bytes)) = found.filter(|_| request.path.ends_with("?key=secret")) else {
        return plain("403 Forbidden", &[], "");
    };
    content(state, request, &file, &bytes, vec![("ETag", "\"of-the-storage\"".into())])
}

/// The bytes of a file, or those that were asked for, or what a fault makes of them.
fn content(
    state: &mut State,
    request: &Request,
    file: &str,
    bytes: &[u8],
    mut headers: Vec<(&str, String)>,
) -> Reply {
    let is_get = request.method == "GET";
    let fault = state.faults.get_mut(file).filter(|(_, times)| is_get && *times > 0).map(|(fault, times)| {
        *times -= 1;
        *fault
    });
    let bytes = match fault {
        Some(Fault::Short) => bytes[..bytes.len() - 1].to_vec(),
        Some(Fault::Long) => [bytes, b"!"].concat(),
        _ => bytes.to_vec(),
    };
    let knows_ranges = !matches!(fault, Some(Fault::NoRanges | Fault::CutWithoutRanges(_)));
    let from = request
        .range
        .as_deref()
        .filter(|_| knows_ranges)
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    if from.is_some_and(|from| from >= bytes.len()) {
        return plain(
            "416 Range Not Satisfiable",
            &[("Content-Range", format!("bytes */{}", bytes.len()))],
            "",
        );
    }
    let rest = &bytes[from.unwrap_or(0)..];
    headers.push(("Content-Length", rest.len().to_string()));
    let status = match from {
        Some(from) => {
            headers.push(("Content-Range", format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len())));
            "206 Partial Content"
        }
        None => "200 OK",
    };
    let sent = match fault {
        Some(Fault::Cut(length) | Fault::CutWithoutRanges(length)) => &rest[..length.min(rest.len())],
        Some(Fault::Silence) => &[],
        _ => rest,
    };
    Reply { is_silent: fault == Some(Fault::Silence), ..plain(status, &headers, sent) }
}
