// What can be done with one job of the list: downloads, links, a review, scoring again and what changed by it.
"use strict";

const LINKS = "deepfakestream-links";
const LINK_VALID_S = 86400;
const MARGIN_MS = 60_000;
const MAX_DIFFERENCES = 10;
const JSON_TYPE = { "Content-Type": "application/json" };
const dialog = document.getElementById("job");
const dialogMessage = document.getElementById("job-message");
const differences = document.getElementById("differences");
let shown = null;

function find(id) {
  return document.getElementById(id);
}

function readLinks() {
  return JSON.parse(sessionStorage.getItem(LINKS) || "{}");
}

function keepLink(id, link) {
  const links = readLinks();
  links[id] = link;
  sessionStorage.setItem(LINKS, JSON.stringify(links));
}

function makeLink(job) {
  return call("POST", `/v1/jobs/${job.id}/shares`, {
    headers: JSON_TYPE,
    body: JSON.stringify({ valid_s: LINK_VALID_S }),
  });
}

// Returns the link that this tab made for the job if it still works, or else a new one: a job has at most 100 of them.
async function findLink(job) {
  const kept = readLinks()[job.id];
  if (kept && Date.parse(kept.expires_at) - MARGIN_MS > Date.now()) {
    const { items } = await call("GET", `/v1/jobs/${job.id}/shares`);
    if (items.some((item) => item.id === kept.id)) {
      return kept;
    }
  }
  const made = await makeLink(job);
  keepLink(job.id, made);
  return made;
}

function sayInDialog(text) {
  dialogMessage.textContent = text;
}

// Runs what a button does for the job that is shown, with the button off meanwhile. What *work* returns shows its
// result, and is left out, as is an error, if the dialog shows another job by then.
async function act(button, work) {
  const job = shown;
  button.disabled = true;
  sayInDialog("");
  try {
    const showResult = await work(job);
    if (job === shown) {
      await showResult?.();
    }
  } catch (error) {
    if (job === shown) {
      sayInDialog(error.message);
    }
  } finally {
    button.disabled = false;
  }
}

async function download(job, name) {
  const answer = await request("GET", `/v1/jobs/${job.id}/${name}`);
  const [stem, ending] = name.split(".");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await answer.blob());
  link.download = `${stem}-${job.id}.${ending}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), MARGIN_MS);
}

async function listLinks() {
  const job = shown;
  const { items } = await call("GET", `/v1/jobs/${job.id}/shares`);
  if (job !== shown) {
    return;
  }
  find("links").replaceChildren(
    ...items.map((item) => {
      const line = document.createElement("li");
      const button = document.createElement("button");
      const until = new Date(item.expires_at).toLocaleString();
      button.type = "button";
      button.textContent = "Revoke";
      button.setAttribute("aria-label", `Revoke the link that works until ${until}`);
      button.addEventListener("click", () =>
        act(button, async () => {
          await call("DELETE", `/v1/jobs/${job.id}/shares/${item.id}`);
          await listLinks();
          return () => {
            sayInDialog("The link is revoked.");
            find("share").focus();
          };
        }),
      );
      line.append(`Works until ${until} `, button);
      return line;
    }),
  );
}

function points(score) {
  return score === null ? "none" : (100 * score).toFixed(1);
}

function addRow(body, texts) {
  const row = body.insertRow();
  texts.forEach((text) => (row.insertCell().textContent = text));
}

function showDifferences(diff) {
  const { before, after } = diff;
  const body = find("sides");
  body.replaceChildren();
  for (const [name, read] of [
    ["Result", (side) => VERDICTS[side.verdict] || side.verdict],
    ["Score, 0 to 100", (side) => points(side.fake_score)],
    ["Checkpoint", (side) => side.model],
    ["Weights", (side) => (side.weights_sha256 || "").slice(0, 12)],
    ["Frames a second", (side) => side.sample_fps],
    ["Seconds of a segment", (side) => side.segment_seconds],
  ]) {
    addRow(body, [name, read(before), read(after)]);
  }
  const distance = (one) => (one.before === null || one.after === null ? 2 : Math.abs(one.after - one.before));
  const most = diff.intervals
    .filter((one) => one.before !== one.after)
    .sort((one, other) => distance(other) - distance(one))
    .slice(0, MAX_DIFFERENCES);
  const times = find("times");
  times.replaceChildren();
  const isImage = shown.media?.kind === "image";
  for (const one of most) {
    const when = isImage ? `page ${one.start_s + 1}` : `${one.start_s.toFixed(1)} to ${one.end_s.toFixed(1)} s`;
    addRow(times, [when, points(one.before), points(one.after)]);
  }
  find("times-table").hidden = most.length === 0;
  find("changed").textContent = diff.verdict_changed ? "The result is another one." : "The result is the same.";
  differences.hidden = false;
}

function listRelated() {
  const jobs = [...rows.values()].map((row) => row.job);
  const related = jobs.filter(
    (job) =>
      job.id !== shown.id && job.status === "succeeded" && job.media && job.media.sha256 === shown.media?.sha256,
  );
  if (shown.parent_id && !related.some((job) => job.id === shown.parent_id)) {
    related.push({ id: shown.parent_id, model: null, created_at: null });
  }
  find("other").replaceChildren(
    ...related.map((job) => {
      const name = job.created_at ? `${new Date(job.created_at).toLocaleString()}, ${job.model?.name}` : "the job before";
      return new Option(name, job.id);
    }),
  );
  find("compare").hidden = related.length === 0 || shown.status !== "succeeded";
}

async function listCheckpoints() {
  const { items } = await call("GET", "/v1/models");
  find("checkpoint").replaceChildren(...items.map((model) => new Option(`${model.name} ${model.version}`, model.name)));
  find("checkpoint").value = shown.model?.name || find("checkpoint").value;
}

async function openJob(id, opener) {
  let job = null;
  try {
    job = await call("GET", `/v1/jobs/${id}`);
  } catch (error) {
    say(error.message);
    return;
  }
  if (dialog.open) {
    // Another job was chosen first, and answered first.
    return;
  }
  shown = job;
  const hasEnded = !ACTIVE.has(shown.status);
  sayInDialog("");
  differences.hidden = true;
  find("new-link").hidden = true;
  find("job-title").textContent = describeFile(shown);
  find("live").hidden = hasEnded || !streams.has(id);
  find("review").hidden = !hasEnded;
  find("downloads").hidden = !hasEnded;
  find("again").hidden = !hasEnded || !shown.media?.stored;
  find("finding").value = shown.review?.finding || "";
  find("note").value = shown.review?.note || "";
  find("withdraw").hidden = !shown.review;
  listRelated();
  dialog.addEventListener("close", () => opener.focus(), { once: true });
  dialog.showModal();
  await Promise.all([listLinks(), listCheckpoints()]).catch((error) => sayInDialog(error.message));
}

find("close").addEventListener("click", () => dialog.close());
for (const button of document.querySelectorAll("#downloads button")) {
  button.addEventListener("click", () => act(button, (job) => download(job, button.dataset.name)));
}
find("stop").addEventListener("click", (event) =>
  act(event.currentTarget, async (job) => {
    await call("POST", `/v1/streams/${job.id}/stop`);
    return () => sayInDialog("The stream is being stopped; its report follows.");
  }),
);
find("share").addEventListener("click", (event) =>
  act(event.currentTarget, async (job) => {
    const made = await findLink(job);
    return () => {
      find("address").value = made.url;
      find("until").textContent = new Date(made.expires_at).toLocaleString();
      find("new-link").hidden = false;
      return listLinks();
    };
  }),
);
find("review").addEventListener("submit", (event) => {
  event.preventDefault();
  act(find("record"), async (job) => {
    const body = JSON.stringify({ finding: find("finding").value, note: find("note").value || null });
    await call("PUT", `/v1/jobs/${job.id}/review`, { headers: JSON_TYPE, body });
    return () => {
      find("withdraw").hidden = false;
      sayInDialog("The finding is recorded.");
    };
  });
});
find("withdraw").addEventListener("click", (event) =>
  act(event.currentTarget, async (job) => {
    await call("DELETE", `/v1/jobs/${job.id}/review`);
    return () => {
      find("finding").value = "";
      find("note").value = "";
      find("record").focus();
      find("withdraw").hidden = true;
      sayInDialog("The finding is withdrawn.");
    };
  }),
);
find("again").addEventListener("submit", (event) => {
  event.preventDefault();
  act(find("rescore"), async (job) => {
    const body = JSON.stringify({ model: find("checkpoint").value });
    show(await call("POST", `/v1/jobs/${job.id}/rescore`, { headers: JSON_TYPE, body }), true);
    return () =>
      sayInDialog("The new job is at the top of your list. When it has ended, open it there to compare the two.");
  });
});
find("compare").addEventListener("submit", (event) => {
  event.preventDefault();
  act(find("show-differences"), async (job) => {
    // Ids of jobs begin with their time: the older job is the one before.
    const [before, after] = [find("other").value, job.id].sort();
    const diff = await call("GET", `/v1/jobs/${before}/diff/${after}`);
    return () => showDifferences(diff);
  });
});
