// The page about inputs: the key that is typed in fetches a page from the service, and its content is shown here.
"use strict";

// Not the name that the pages about jobs use: a key that is refused here may be right there.
const KEY = "deepfakestream-admin-key";
const form = document.getElementById("key-form");
const work = document.getElementById("work");
const message = document.getElementById("message");
const period = document.getElementById("period");
const keyError = document.getElementById("key-error");
const place = document.getElementById("inputs");
// Of the newest request. An answer to an earlier one is dropped: it is of another period, or of another key.
let newest = 0;

function askForKey(reason) {
  newest += 1;
  sessionStorage.removeItem(KEY);
  place.replaceChildren();
  message.textContent = "";
  form.hidden = false;
  work.hidden = true;
  keyError.textContent = reason;
  document.getElementById("key").focus();
}

// Null if the service cannot be reached, or stops in the middle of its answer.
async function ask() {
  const headers = { Authorization: `Bearer ${sessionStorage.getItem(KEY)}` };
  try {
    const answer = await fetch(`/v1/inputs.html?days=${period.value}`, { headers });
    return { ok: answer.ok, status: answer.status, text: await answer.text() };
  } catch {
    return null;
  }
}

function detailOf(answer) {
  try {
    return JSON.parse(answer.text).detail || `The service answered ${answer.status}.`;
  } catch {
    return `The service answered ${answer.status}.`;
  }
}

async function show() {
  newest += 1;
  const number = newest;
  keyError.textContent = "";
  message.textContent = "Loading …";
  const answer = await ask();
  if (number !== newest) {
    return;
  }
  if (answer === null) {
    message.textContent = "The service does not answer; try again.";
  } else if (answer.status === 401 || answer.status === 403) {
    askForKey(detailOf(answer));
  } else if (!answer.ok) {
    message.textContent = detailOf(answer);
  } else {
    // Without the inline style sheet, which this page's policy refuses even where it is only parsed.
    const { text } = answer;
    const part = text.slice(text.indexOf("<article>"), text.lastIndexOf("</article>"));
    const found = new DOMParser().parseFromString(part, "text/html").querySelector("article");
    place.replaceChildren(document.importNode(found, true));
    message.textContent = "";
    form.hidden = true;
    work.hidden = false;
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, document.getElementById("key").value.trim());
  document.getElementById("key").value = "";
  show();
});
document.getElementById("forget").addEventListener("click", () => askForKey(""));
period.addEventListener("change", show);
if (sessionStorage.getItem(KEY)) {
  show();
}
