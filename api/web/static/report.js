// The report in step with its media: choosing a time goes there, faces are cut out of the picture, progress is live.
"use strict";

const report = document.getElementById("report");
const player = document.getElementById("player");
const picture = document.getElementById("picture");
const cursor = document.getElementById("cursor");
const MAX_TRIES = 20;

function goTo(seconds) {
  if (player && Number.isFinite(player.duration)) {
    player.currentTime = Math.min(seconds, player.duration);
    // The focus stays, so that the next bar is one key away.
    player.scrollIntoView({ block: "nearest" });
  }
}

for (const link of document.querySelectorAll(".jump")) {
  link.addEventListener("click", (event) => {
    if (player) {
      event.preventDefault();
      goTo(Number(link.dataset.time));
    }
  });
}

// The service answers 503 or 429 while too many people look at media. Returns after how many seconds to ask again, or
// null where asking again is of no use.
async function secondsUntilRetry(address) {
  const answer = await fetch(address, { headers: { Range: "bytes=0-0" } }).catch(() => null);
  if (answer === null || answer.ok) {
    return answer === null ? 2 : 0;
  }
  return [429, 503].includes(answer.status) ? Number(answer.headers.get("Retry-After")) || 2 : null;
}

// Loads the media of `element` again after an error, as long as the service was only busy.
function retryMedia(element, giveUp) {
  const address = element.src;
  let tries = 0;
  let sent = 0;
  element.addEventListener("error", async () => {
    tries += 1;
    const seconds = tries > MAX_TRIES ? null : await secondsUntilRetry(address);
    sent = seconds === 0 ? sent + 1 : 0;
    // Media that arrives twice but cannot be played is not going to be playable later.
    if (seconds === null || sent > 1) {
      giveUp();
      return;
    }
    setTimeout(() => (element.src = address), 1000 * seconds);
  });
}

if (player) {
  player.addEventListener("timeupdate", () => {
    if (cursor) {
      const x = `${Math.min(100, (100 * player.currentTime) / Number(cursor.dataset.duration))}%`;
      cursor.setAttribute("x1", x);
      cursor.setAttribute("x2", x);
      cursor.classList.add("moved");
    }
  });
  const showUnplayable = () => (document.getElementById("unplayable").hidden = false);
  retryMedia(player, showUnplayable);
  if (player.error) {
    // It failed before this script ran.
    player.dispatchEvent(new Event("error"));
  }
}

function drawFace(canvas, source, width, height) {
  const [left, top, right, bottom] = canvas.dataset.box.split(",").map(Number);
  // A square about the face, with some of what is around it.
  const side = 1.4 * Math.max(right - left, bottom - top);
  const x = Math.max(0, Math.min((left + right - side) / 2, width - side));
  const y = Math.max(0, Math.min((top + bottom - side) / 2, height - side));
  canvas.getContext("2d").drawImage(source, x, y, side, side, 0, 0, canvas.width, canvas.height);
  canvas.dataset.drawn = "yes";
}

function drawFacesOfPicture() {
  for (const canvas of document.querySelectorAll(".face")) {
    // Only the first page of a picture with several is shown by browsers.
    if (Number(canvas.dataset.time) === 0) {
      drawFace(canvas, picture, picture.naturalWidth, picture.naturalHeight);
    }
  }
}

async function drawFacesOfVideo() {
  // A second, silent player: the visible one stays where it is.
  const video = document.createElement("video");
  video.muted = true;
  video.preload = "auto";
  // After the visible one has begun, so that a person's own requests do not wait for each other.
  if (player.readyState < HTMLMediaElement.HAVE_METADATA) {
    await new Promise((resolve) => player.addEventListener("loadedmetadata", resolve, { once: true }));
  }
  await new Promise((resolve, reject) => {
    video.addEventListener("loadeddata", resolve, { once: true });
    video.src = player.src;
    retryMedia(video, reject);
  });
  for (const canvas of document.querySelectorAll(".face")) {
    const isThere = new Promise((resolve) => {
      video.addEventListener("seeked", resolve, { once: true });
      setTimeout(resolve, 5000);
    });
    video.currentTime = Number(canvas.dataset.time);
    await isThere;
    drawFace(canvas, video, video.videoWidth, video.videoHeight);
  }
  video.removeAttribute("src");
  video.load();
}

if (picture) {
  retryMedia(picture, () => {});
  if (picture.complete && picture.naturalWidth === 0) {
    picture.dispatchEvent(new Event("error"));
  }
  if (picture.complete && picture.naturalWidth > 0) {
    drawFacesOfPicture();
  } else {
    picture.addEventListener("load", drawFacesOfPicture);
  }
} else if (player && document.querySelector(".face")) {
  drawFacesOfVideo().catch(() => {});
}

function showProgress(state) {
  if (state.is_final) {
    location.reload();
    return;
  }
  const bar = document.getElementById("progress");
  bar.max = state.segments_total || 1;
  bar.value = state.segments_done;
  document.getElementById("done").textContent = state.segments_done;
  document.getElementById("total").textContent = state.segments_total ?? "?";
}

async function poll() {
  try {
    const answer = await fetch(report.dataset.state);
    if (answer.ok) {
      showProgress(await answer.json());
    }
  } finally {
    setTimeout(poll, 3000);
  }
}

if (report.dataset.final === "no") {
  const source = new EventSource(report.dataset.events);
  source.addEventListener("message", (event) => showProgress(JSON.parse(event.data)));
  source.addEventListener("error", () => {
    // Closed for good where the service refuses to hold one more connection.
    if (source.readyState === EventSource.CLOSED) {
      poll();
    }
  });
}
