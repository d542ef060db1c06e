// The page about inputs: the key that is typed in fetches a page from the service, and its content is shown here.
"use strict";

const message = document.getElementById("message");
const period = document.getElementById("period");
const place = document.getElementById("inputs");
// Of the newest request. An answer to an earlier one is dropped: it is of another period, or of another key.
let newest = 0;

const key = useKeyForm({
  // Not the name that the pages about jobs use: a key that is refused here may be right there.
  name: "deepfakestream-admin-key",
  begin: show,
  end() {
    newest += 1;
    place.replaceChildren();
    message.textContent = "";
  },
});

// Null if the service cannot be reached, or stops in the middle of its answer.
async function ask() {
  const headers = { Authorization: key.header() };
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
  message.textContent = "Loading …";
  const answer = await ask();
  if (number !== newest) {
    return;
  }
  if (answer === null) {
    message.textContent = "The service does not answer; try again.";
  } else if (answer.status === 401 || answer.status === 403) {
    key.ask(detailOf(answer));
  } else if (!answer.ok) {
    message.textContent = detailOf(answer);
  } else {
    // Without the inline style sheet, which this page's policy refuses even where it is only parsed.
    const { text } = answer;
    const part = text.slice(text.indexOf("<article>"), text.lastIndexOf("</article>"));
    const found = new DOMParser().parseFromString(part, "text/html").querySelector("article");
    place.replaceChildren(document.importNode(found, true));
    message.textContent = "";
    key.showWork();
  }
}

period.addEventListener("change", show);
if (key.hasKey()) {
  show();
}
