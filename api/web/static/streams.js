// Live streams in the list of jobs: which jobs are streams, how they are at present, and a form that begins one.
"use strict";

const streams = new Map();
let streamCursor = null;
let hasAllStreams = false;

// Lists streams until each of the *jobs* that is one is known. Ids begin with their time, and both lists are by age.
async function loadStreams(jobs) {
  const oldest = jobs.map((job) => job.id).sort()[0];
  let reached = null;
  while (jobs.length > 0 && !hasAllStreams && (reached === null || reached > oldest)) {
    const query = streamCursor ? `?limit=100&cursor=${encodeURIComponent(streamCursor)}` : "?limit=100";
    const page = await call("GET", `/v1/streams${query}`);
    page.items.forEach((stream) => streams.set(stream.id, stream));
    reached = page.items.at(-1)?.id ?? oldest;
    streamCursor = page.next_cursor;
    hasAllStreams = streamCursor === null;
  }
}

function forgetStreams() {
  streams.clear();
  streamCursor = null;
  hasAllStreams = false;
}

function describeStream(stream) {
  const name = stream.metadata.filename;
  return printable(typeof name === "string" && name ? name : stream.source);
}

function streamOutcome(stream) {
  if (stream.why !== null) {
    return "live, ending";
  }
  if (stream.state === "away") {
    return "live, the source is away";
  }
  if (stream.state === "waiting") {
    return "live, waiting for the first picture";
  }
  // The list of streams has no people; they come with the first refresh.
  const alerting = (stream.people || []).filter((person) => person.is_alerting || person.is_held_back);
  if (alerting.length > 0) {
    return `live, ALERT about person ${alerting.map((person) => person.person).join(", ")}`;
  }
  return stream.people ? "live, no alert" : "live";
}

// Reads the stream of a row again; returns whether it still runs.
async function refreshStream(id) {
  const stream = await call("GET", `/v1/streams/${id}`);
  streams.set(id, stream);
  return ACTIVE.has(stream.status);
}

document.getElementById("watch-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const value = (id) => document.getElementById(id).value;
  const isChecked = (id) => document.getElementById(id).checked;
  const [name, username, password] = [value("stream-name"), value("stream-user"), value("stream-password")];
  const body = { url: value("stream-url").trim(), record: isChecked("stream-record") ? "suspicious" : "none" };
  if (isChecked("stream-faces")) {
    body.last_faces = true;
  }
  if (name) {
    body.metadata = { filename: name };
  }
  if (username || password) {
    body.secret = { ...(username && { username }), ...(password && { password }) };
  }
  const button = document.getElementById("watch-begin");
  button.disabled = true;
  say("");
  try {
    const stream = await call("POST", "/v1/streams", {
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    streams.set(stream.id, stream);
    show(await call("GET", `/v1/jobs/${stream.id}`), true);
    event.target.reset();
    say(`${describeStream(stream)} is being watched; its report shows it live.`);
  } catch (error) {
    say(error.message);
  } finally {
    button.disabled = false;
  }
});
