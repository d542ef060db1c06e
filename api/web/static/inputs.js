// The page about inputs: the key that is typed in fetches a page from the service, and its content is shown here.
"use strict";

const KEY = "deepfakestream-key";
const form = document.getElementById("key-form");
const work = document.getElementById("work");
const message = document.getElementById("message");
const period = document.getElementById("period");
const keyError = document.getElementById("key-error");
const place = document.getElementById("inputs");

function askForKey(reason) {
  sessionStorage.removeItem(KEY);
  place.replaceChildren();
  form.hidden = false;
  work.hidden = true;
  keyError.textContent = reason;
  document.getElementById("key").focus();
}

async function show() {
  keyError.textContent = "";
  message.textContent = "Loading …";
  const headers = { Authorization: `Bearer ${sessionStorage.getItem(KEY)}` };
  const answer = await fetch(`/v1/inputs.html?days=${period.value}`, { headers }).catch(() => null);
  if (answer === null) {
    message.textContent = "The service does not answer; try again.";
    return;
  }
  if (!answer.ok) {
    const problem = await answer.json().catch(() => ({}));
    const detail = problem.detail || `The service answered ${answer.status}.`;
    if (answer.status === 401 || answer.status === 403) {
      askForKey(detail);
    } else {
      message.textContent = detail;
    }
    return;
  }
  // Without the inline style sheet, which this page's policy refuses even where it is only parsed.
  const text = await answer.text();
  const part = text.slice(text.indexOf("<article>"), text.lastIndexOf("</article>"));
  const found = new DOMParser().parseFromString(part, "text/html").querySelector("article");
  place.replaceChildren(document.importNode(found, true));
  message.textContent = "";
  form.hidden = true;
  work.hidden = false;
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
