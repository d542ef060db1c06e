// The list of jobs and the upload. All data is from the API, requested with the key that was typed in.
"use strict";

const VERDICTS = {
  fake: "signs of a swap",
  real: "no signs of a swap",
  inconclusive: "not decided",
  not_applicable: "no face found",
};
const MAX_NAME_CHARACTERS = 200;
const ACTIVE = new Set(["queued", "running"]);
const rows = new Map();
const message = document.getElementById("message");
const list = document.getElementById("jobs");
const more = document.getElementById("more");
const drop = document.getElementById("drop");
const input = document.getElementById("file");
// With the key, the links are dropped that were made by it, and not the key of the page about inputs.
const key = useKeyForm({
  name: "deepfakestream-key",
  begin,
  end() {
    const made = Object.keys(sessionStorage).filter((name) => name !== "deepfakestream-admin-key");
    made.forEach((name) => sessionStorage.removeItem(name));
  },
});
let cursor = null;

function say(text) {
  message.textContent = text;
}

// Sends a request with the key of this tab. Throws what the service says of an error, with its status.
async function request(method, path, options = {}) {
  const headers = { ...options.headers, Authorization: key.header() };
  const answer = await fetch(path, { ...options, method, headers }).catch(() => {
    throw new Error("The service does not answer; try again.");
  });
  if (!answer.ok) {
    const problem = await answer.json().catch(() => ({}));
    throw Object.assign(new Error(problem.detail || `The service answered ${answer.status}.`), {
      status: answer.status,
    });
  }
  return answer;
}

// Returns the JSON of an answer; nothing if it has none.
async function call(method, path, options = {}) {
  const answer = await request(method, path, options);
  return answer.json().catch(() => ({}));
}

// Invisible characters and those that reorder others become escapes, as in the report (api/web/wording.py).
function printable(text) {
  return text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (one) => `\\u${one.codePointAt(0).toString(16).padStart(4, "0")}`);
}

function describeFile(job) {
  if (streams.has(job.id)) {
    return describeStream(streams.get(job.id));
  }
  const name = job.metadata.filename;
  if (typeof name === "string" && name) {
    return printable(name);
  }
  return job.media ? `SHA-256 ${job.media.sha256.slice(0, 12)}…` : "being fetched";
}

function cell(row, text, className) {
  const made = document.createElement("span");
  made.textContent = text;
  made.className = className;
  row.insertCell().append(made);
}

function showWhetherEmpty() {
  document.getElementById("empty").hidden = rows.size > 0;
  document.getElementById("table").hidden = rows.size === 0;
}

async function openReport(job, button) {
  button.disabled = true;
  try {
    const made = await findLink(job);
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
    return `failed: ${printable(job.error.detail)}`;
  }
  if (ACTIVE.has(job.status) && streams.has(job.id)) {
    return streamOutcome(streams.get(job.id));
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
  row.job = job;
  const values = [
    [new Date(job.created_at).toLocaleString(), ""],
    [describeFile(job), "name"],
    [outcome(job), "result"],
    [job.fake_score === null ? "" : (100 * job.fake_score).toFixed(1), ""],
  ];
  if (row.cells.length > 0) {
    // The button stays, and with it the focus.
    values.forEach(([text], index) => (row.cells[index].firstChild.textContent = text));
    return;
  }
  values.forEach(([text, className]) => cell(row, text, className));
  row.cells[0].className = "wide";
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Open report";
  button.setAttribute("aria-label", `Open report of ${describeFile(job).slice(0, MAX_NAME_CHARACTERS)}`);
  button.addEventListener("click", () => openReport(job, button));
  const actions = document.createElement("button");
  actions.type = "button";
  actions.textContent = "Actions";
  actions.setAttribute("aria-label", `Actions for ${describeFile(job).slice(0, MAX_NAME_CHARACTERS)}`);
  actions.addEventListener("click", () => openJob(job.id, actions));
  row.insertCell().append(button, " ", actions);
  showWhetherEmpty();
}

function remove(job) {
  rows.get(job.id)?.remove();
  rows.delete(job.id);
  showWhetherEmpty();
}

async function load(isFirst) {
  const query = cursor && !isFirst ? `?limit=20&cursor=${encodeURIComponent(cursor)}` : "?limit=20";
  const page = await call("GET", `/v1/jobs${query}`);
  await loadStreams(page.items.filter((job) => job.media === null));
  page.items.forEach((job) => show(job, false));
  cursor = page.next_cursor;
  more.hidden = cursor === null;
  showWhetherEmpty();
}

async function refresh() {
  const open = [...rows.values()].filter((row) => ACTIVE.has(row.job.status));
  for (const row of open.slice(0, 20)) {
    try {
      const isLive = streams.has(row.job.id) && (await refreshStream(row.job.id));
      show(isLive ? row.job : await call("GET", `/v1/jobs/${row.job.id}`), false);
    } catch (error) {
      if (error.status !== 404) {
        break;
      }
      remove(row.job);
    }
  }
  setTimeout(refresh, 2000);
}

async function submit(file) {
  // Whole characters, and few enough for the address of a request.
  const name = [...file.name].slice(0, MAX_NAME_CHARACTERS).join("");
  say(`Sending ${printable(name)} …`);
  try {
    const metadata = encodeURIComponent(JSON.stringify({ filename: name }));
    const job = await call("POST", `/v1/jobs?metadata=${metadata}`, {
      headers: { "Content-Type": "application/octet-stream" },
      body: file,
    });
    show(job, true);
    say(`${printable(name)} is being analysed.`);
  } catch (error) {
    say(`${printable(name)}: ${error.message}`);
  }
}

async function submitAll(files) {
  for (const file of files) {
    await submit(file);
  }
}

async function begin() {
  rows.clear();
  forgetStreams();
  list.replaceChildren();
  say("");
  try {
    await load(true);
  } catch (error) {
    if (error.status === 401 || error.status === 403) {
      key.ask(error.message);
      return;
    }
    say(error.message);
  }
  key.showWork();
}

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
document.addEventListener("DOMContentLoaded", () => {
  if (key.hasKey()) {
    begin();
  }
  refresh();
});
