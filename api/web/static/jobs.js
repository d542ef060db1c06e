// The list of jobs and the upload. All of it is asked of the API, with the key that was typed in.
"use strict";

const KEY = "deepfakestream-key";
const VERDICTS = {
  fake: "signs of a swap",
  real: "no signs of a swap",
  inconclusive: "not decided",
  not_applicable: "no face found",
};
const ACTIVE = new Set(["queued", "running"]);
const rows = new Map();
const form = document.getElementById("key-form");
const work = document.getElementById("work");
const message = document.getElementById("message");
const list = document.getElementById("jobs");
const more = document.getElementById("more");
const drop = document.getElementById("drop");
const input = document.getElementById("file");
let cursor = null;

function say(text) {
  message.textContent = text;
}

async function call(method, path, options = {}) {
  const headers = { ...options.headers, Authorization: `Bearer ${sessionStorage.getItem(KEY)}` };
  const answer = await fetch(path, { ...options, method, headers });
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) {
    throw new Error(body.detail || `The service answered ${answer.status}.`);
  }
  return body;
}

function cell(row, text, className) {
  const made = row.insertCell();
  made.textContent = text;
  if (className) {
    made.className = className;
  }
  return made;
}

async function openReport(job, button) {
  button.disabled = true;
  try {
    const made = await call("POST", `/v1/jobs/${job.id}/shares`, {
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ valid_s: 86400 }),
    });
    location.assign(new URL(made.url).pathname + new URL(made.url).search);
  } catch (error) {
    say(error.message);
    button.disabled = false;
  }
}

function outcome(job) {
  if (job.status === "succeeded") {
    return VERDICTS[job.verdict] || job.verdict;
  }
  if (job.status === "failed") {
    return `failed: ${job.error.detail}`;
  }
  if (ACTIVE.has(job.status)) {
    const { segments_done: done, segments_total: total } = job.progress;
    return total === null ? job.status : `${job.status}: ${done} of ${total} segments`;
  }
  return job.status;
}

function show(job, isNew) {
  let row = rows.get(job.id);
  if (!row) {
    row = list.insertRow(isNew ? 0 : -1);
    rows.set(job.id, row);
  }
  row.replaceChildren();
  row.job = job;
  cell(row, new Date(job.created_at).toLocaleString());
  cell(row, job.metadata.filename || (job.media ? `${job.media.sha256.slice(0, 12)}…` : "being fetched"));
  cell(row, outcome(job));
  cell(row, job.fake_score === null ? "" : `${Math.round(100 * job.fake_score)} %`);
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Open report";
  button.addEventListener("click", () => openReport(job, button));
  row.insertCell().append(button);
}

async function load(isFirst) {
  const query = cursor && !isFirst ? `?limit=20&cursor=${encodeURIComponent(cursor)}` : "?limit=20";
  const page = await call("GET", `/v1/jobs${query}`);
  page.items.forEach((job) => show(job, false));
  cursor = page.next_cursor;
  more.hidden = cursor === null;
}

async function refresh() {
  const open = [...rows.values()].filter((row) => ACTIVE.has(row.job.status));
  for (const row of open.slice(0, 20)) {
    try {
      show(await call("GET", `/v1/jobs/${row.job.id}`), false);
    } catch {
      break;
    }
  }
  setTimeout(refresh, 2000);
}

async function submit(file) {
  say(`Sending ${file.name} …`);
  try {
    const metadata = encodeURIComponent(JSON.stringify({ filename: file.name }));
    const job = await call("POST", `/v1/jobs?metadata=${metadata}`, {
      headers: { "Content-Type": "application/octet-stream" },
      body: file,
    });
    show(job, true);
    say(`${file.name} is being analysed.`);
  } catch (error) {
    say(`${file.name}: ${error.message}`);
  }
}

async function submitAll(files) {
  for (const file of files) {
    await submit(file);
  }
}

async function begin() {
  rows.clear();
  list.replaceChildren();
  try {
    await load(true);
    work.hidden = false;
    say("");
  } catch (error) {
    work.hidden = false;
    say(error.message);
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, document.getElementById("key").value.trim());
  document.getElementById("key").value = "";
  begin();
});
more.addEventListener("click", () => load(false).catch((error) => say(error.message)));
input.addEventListener("change", () => {
  submitAll([...input.files]);
  input.value = "";
});
for (const kind of ["dragenter", "dragover"]) {
  drop.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  submitAll([...event.dataTransfer.files]);
});
if (sessionStorage.getItem(KEY)) {
  begin();
}
refresh();
