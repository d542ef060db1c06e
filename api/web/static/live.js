// A live stream while it runs: a moving line of scores, the people at present, alerts, the source, and its end.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const KEY = "deepfakestream-key";
const LINE_STYLES = 6;
const UNREAD = { gap: "missed", dropped: "left out" };
const MAX_ALERTS = 20;
const MAX_ROWS = 100;
const POLL_MS = 2000;
// Alerts and the state of the source are announced together and at most so often, and scores never.
const SAY_EVERY_MS = 5000;
const report = document.getElementById("report");
const pageTitle = document.title;
const recentS = Number(report.dataset.recent);
let after = Number(report.dataset.after);
let segments = [];
let alerts = [];
let present = null;
let isPolling = false;
let toSay = [];
let isSaying = false;

function find(id) {
  return document.getElementById(id);
}

function points(score) {
  return (100 * score).toFixed(1);
}

function clock(seconds) {
  const whole = Math.round(seconds);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, String(whole % 60).padStart(2, "0")];
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

function draw(parent, name, attributes, title) {
  const made = document.createElementNS(SVG, name);
  Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
  if (title) {
    made.append(document.createElementNS(SVG, "title"));
    made.firstChild.textContent = title;
  }
  parent.append(made);
  return made;
}

function styleOf(person) {
  return `line-${person % LINE_STYLES}`;
}

function say(words) {
  toSay.push(words);
  if (isSaying) {
    return;
  }
  isSaying = true;
  setTimeout(() => {
    find("said").textContent = toSay.slice(-3).join(" ");
    toSay = [];
    setTimeout(() => {
      isSaying = false;
      if (toSay.length > 0) {
        say(toSay.pop());
      }
    }, SAY_EVERY_MS);
  }, 100);
}

// The times of alerts: from the segment that raised one to the one that cleared it, or to the present.
function alertTimes(endS) {
  const open = new Map();
  const times = [];
  for (const alert of alerts) {
    if (alert.action === "raised") {
      open.set(alert.person, alert);
    } else {
      const raised = open.get(alert.person);
      open.delete(alert.person);
      times.push({ person: alert.person, startS: raised ? raised.start_s : 0, endS: alert.time_s });
    }
  }
  open.forEach((alert, person) => times.push({ person, startS: alert.start_s, endS }));
  // Those that were raised before the events that this page has.
  for (const one of present?.people ?? []) {
    if (one.raised_s !== null && !open.has(one.person)) {
      times.push({ person: one.person, startS: one.raised_s, endS });
    }
  }
  return times;
}

function unreadReason(segment) {
  return (segment.reasons || []).find((one) => one in UNREAD);
}

// The times that have no scores since they were missed or left out; neighbours of one kind are one.
function unreadTimes() {
  const times = [];
  for (const segment of segments) {
    const reason = unreadReason(segment);
    const last = times.at(-1);
    if (reason && last?.reason === reason && last.toS === segment.start_s) {
      last.toS = segment.end_s;
    } else if (reason) {
      times.push({ reason, fromS: segment.start_s, toS: segment.end_s });
    }
  }
  return times;
}

function drawLines(scaleX) {
  const lines = find("live-lines");
  const dots = find("live-points");
  const last = new Map();
  lines.replaceChildren();
  dots.replaceChildren();
  let before = null;
  for (const segment of segments) {
    const x = scaleX((segment.start_s + segment.end_s) / 2);
    for (const one of segment.scores || []) {
      const y = 100 * (1 - one.fake_score);
      const known = last.get(one.person);
      // A line goes on only from the segment before: what was not seen is not drawn.
      if (known && known.segment === before) {
        known.line.setAttribute("points", `${known.line.getAttribute("points")} ${x},${y}`);
        known.segment = segment;
      } else {
        const line = draw(lines, "polyline", { class: `line ${styleOf(one.person)}`, points: `${x},${y}` });
        last.set(one.person, { line, segment });
      }
      const words = `${clock(segment.start_s)} to ${clock(segment.end_s)}, person ${one.person}: ${points(one.fake_score)}`;
      draw(dots, "circle", { class: `dot ${styleOf(one.person)}`, cx: `${x}%`, cy: `${y}%`, r: 3 }, words);
    }
    before = segment;
  }
}

function drawAreas(startS, endS, scaleX) {
  const areas = find("live-areas");
  areas.replaceChildren();
  const add = (className, fromS, toS, title) => {
    const from = Math.max(0, scaleX(Math.max(fromS, startS)));
    const to = Math.min(100, scaleX(Math.min(toS, endS)));
    if (to > from) {
      draw(areas, "rect", { class: className, x: from, width: to - from, y: 0, height: 100 }, title);
    }
  };
  for (const { reason, fromS, toS } of unreadTimes()) {
    add(reason, fromS, toS, `${clock(fromS)} to ${clock(toS)}: ${UNREAD[reason]}`);
  }
  for (const time of alertTimes(endS)) {
    add("mark alert-time", time.startS, time.endS, `${clock(time.startS)} to ${clock(time.endS)}: alert, person ${time.person}`);
  }
}

function drawLimit() {
  const limit = present?.fake_from ?? null;
  find("live-limit").setAttribute("visibility", limit === null ? "hidden" : "visible");
  find("live-limit-name").textContent = limit === null ? "" : `alert from ${points(limit)}`;
  if (limit !== null) {
    const y = `${100 * (1 - limit)}%`;
    find("live-limit").setAttribute("y1", y);
    find("live-limit").setAttribute("y2", y);
    find("live-limit-name").setAttribute("y", y);
  }
}

function describeSegment(segment) {
  const reason = unreadReason(segment);
  if (reason) {
    return UNREAD[reason];
  }
  const scores = (segment.scores || []).map((one) => `person ${one.person}: ${points(one.fake_score)}`);
  if (scores.length === 0) {
    return segment.fake_score === null ? `no score. ${segment.why}` : points(segment.fake_score);
  }
  return scores.join(", ");
}

function fillTable() {
  const body = find("live-table").querySelector("tbody");
  if (!find("live-table").open) {
    return;
  }
  body.replaceChildren();
  for (const segment of segments.slice(-MAX_ROWS).reverse()) {
    const row = body.insertRow();
    row.insertCell().textContent = `${clock(segment.start_s)} to ${clock(segment.end_s)}`;
    row.insertCell().textContent = describeSegment(segment);
  }
}

function drawAll() {
  drawLimit();
  if (segments.length === 0) {
    return;
  }
  const endS = segments.at(-1).end_s;
  const startS = Math.max(0, endS - recentS);
  const lengthS = Math.max(endS - startS, 1);
  const scaleX = (seconds) => (100 * (seconds - startS)) / lengthS;
  segments = segments.filter((segment) => segment.end_s > startS);
  drawAreas(startS, endS, scaleX);
  drawLines(scaleX);
  find("live-chart").hidden = false;
  find("live-table").hidden = false;
  find("live-from").textContent = clock(startS);
  find("live-to").textContent = clock(endS);
  const newest = segments.at(-1);
  find("line-words").textContent = `Newest segment, ${clock(newest.start_s)} to ${clock(newest.end_s)}: ${describeSegment(newest)}`;
  fillTable();
}

function makePerson(number) {
  const item = document.createElement("li");
  item.dataset.person = number;
  const body = document.createElement("div");
  const heading = document.createElement("h3");
  heading.textContent = `Person ${number}`;
  body.append(heading, document.createElement("p"));
  item.append(body);
  return item;
}

// Items stay as long as their person does, so that nothing jumps for those who read them.
function showPeople(people) {
  const list = find("live-people");
  const known = new Map([...list.children].map((item) => [Number(item.dataset.person), item]));
  for (const [number, item] of known) {
    if (!people.some((one) => one.person === number)) {
      item.remove();
    }
  }
  people.forEach((one, index) => {
    const item = known.get(one.person) || makePerson(one.person);
    if (list.children[index] !== item) {
      list.insertBefore(item, list.children[index] || null);
    }
    const heading = item.querySelector("h3");
    if (!heading.querySelector("svg")) {
      const swatch = draw(heading, "svg", { class: "swatch", viewBox: "0 0 40 10", "aria-hidden": "true" });
      draw(swatch, "polyline", { class: `line ${styleOf(one.person)}`, points: "0,5 40,5" });
    }
    item.classList.toggle("alerting", one.is_alerting);
    setText(item.querySelector("p"), one.words);
    showFace(item, one);
  });
  find("nobody").hidden = people.length > 0;
}

// The picture of the newest face, if the stream keeps them while it runs.
function showFace(item, { person, face_s: faceS }) {
  let picture = item.querySelector("img");
  if (faceS === null) {
    picture?.remove();
    return;
  }
  if (!picture) {
    picture = document.createElement("img");
    picture.className = "face";
    picture.width = 112;
    picture.height = 112;
    // It may have been erased since: then there is none.
    picture.addEventListener("error", () => picture.remove());
    item.prepend(picture);
  }
  const address = `${report.dataset.faces.replace("/faces/0?", `/faces/${person}?`)}&at=${faceS}`;
  if (picture.getAttribute("src") !== address) {
    picture.alt = `Face of person ${person} at ${clock(faceS)}`;
    picture.src = address;
  }
}

function setText(element, text) {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}

function showPresent(state) {
  if (state.is_final) {
    location.reload();
    return;
  }
  if (present !== null && present.title !== state.title) {
    say(`${state.title}.`);
  }
  present = state;
  setText(find("present-title"), state.title);
  setText(find("meaning"), state.meaning);
  setText(find("source"), state.source);
  setText(find("counts"), state.counts);
  find("present").classList.toggle("verdict-fake", state.is_alerting);
  document.title = state.is_alerting ? `Alert: ${pageTitle}` : pageTitle;
  if (state.is_ending && !find("stop").hidden) {
    askWhetherToStop(false);
    find("stop").hidden = true;
  }
  showPeople(state.people);
  drawAll();
}

function showAlert(event) {
  const list = find("alerts");
  if (![...list.children].some((item) => Number(item.dataset.seq) === event.seq)) {
    const item = document.createElement("li");
    item.dataset.seq = event.seq;
    item.textContent = event.words;
    list.prepend(item);
    while (list.children.length > MAX_ALERTS) {
      list.lastChild.remove();
    }
  }
  find("no-alerts").hidden = true;
}

function take(kind, event) {
  if (event.seq <= after) {
    return;
  }
  after = event.seq;
  const isNews = present !== null;
  if (kind === "segment") {
    segments.push(event);
  } else if (kind === "alert") {
    alerts.push(event);
    showAlert(event);
  }
  // What happened before the page was opened is shown, and not announced.
  if (event.words && isNews) {
    say(event.words);
  }
}

async function poll() {
  const address = `${report.dataset.state}&after=${after}`;
  const answer = await fetch(address).catch(() => null);
  if (answer?.status === 404) {
    // The link has ended, or the stream was erased: the page says so.
    location.reload();
    return;
  }
  if (answer?.ok) {
    const found = await answer.json();
    found.events.forEach((event) => take(event.kind, event));
    showPresent(found.present);
  }
  setTimeout(poll, POLL_MS);
}

function listen() {
  const source = new EventSource(`${report.dataset.events}&after=${after}`);
  for (const kind of ["segment", "alert", "source"]) {
    source.addEventListener(kind, (event) => take(kind, JSON.parse(event.data)));
  }
  source.addEventListener("message", (event) => showPresent(JSON.parse(event.data)));
  source.addEventListener("error", () => {
    // Closed for good where the service refuses a connection; otherwise the browser connects again by itself.
    if (source.readyState === EventSource.CLOSED && !isPolling) {
      isPolling = true;
      poll();
    }
  });
}

function callStream(method, action = "") {
  const headers = { Authorization: `Bearer ${sessionStorage.getItem(KEY)}` };
  return fetch(`/v1/streams/${report.dataset.job}${action}`, { method, headers }).catch(() => null);
}

// Only for the owner: whoever opened the report from the list of jobs has the key in this tab.
async function offerToStop() {
  if (sessionStorage.getItem(KEY) && (await callStream("GET"))?.ok) {
    find("stopping").hidden = false;
  }
}

function askWhetherToStop(isAsked) {
  find("stop").textContent = isAsked ? "Stop it now" : "Stop the stream";
  find("stop").dataset.asked = isAsked ? "yes" : "";
  find("go-on").hidden = !isAsked;
  find("stop-message").textContent = isAsked ? "A stopped stream cannot go on." : "";
}

find("stop").addEventListener("click", async () => {
  if (!find("stop").dataset.asked) {
    askWhetherToStop(true);
    return;
  }
  find("stop").disabled = true;
  const answer = await callStream("POST", "/stop");
  find("stop").disabled = false;
  if (answer?.ok) {
    find("stop").hidden = true;
    find("go-on").hidden = true;
    find("stop-message").textContent = "The stream is being stopped; its report appears here.";
    return;
  }
  const problem = (await answer?.json().catch(() => null)) || {};
  askWhetherToStop(false);
  find("stop-message").textContent = problem.detail || "The service does not answer; try again.";
});
find("go-on").addEventListener("click", () => {
  askWhetherToStop(false);
  find("stop").focus();
});
find("live-table").addEventListener("toggle", fillTable);
listen();
offerToStop();
