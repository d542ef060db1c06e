// The form that asks for an API key (_key_form.html). The browser keeps the key until the tab is closed.
"use strict";

// Makes the form work, and returns what the scripts of the page need of it.
// name: under which the key is kept. begin: called with each key that is typed in. end: called when a key is dropped.
function useKeyForm({ name, begin, end }) {
  const form = document.getElementById("key-form");
  const work = document.getElementById("work");
  const field = document.getElementById("key");
  const error = document.getElementById("key-error");

  // Drops the key and asks for another one, with the reason if the service refused it.
  function ask(reason) {
    sessionStorage.removeItem(name);
    end();
    form.hidden = false;
    work.hidden = true;
    error.textContent = reason;
    field.focus();
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem(name, field.value.trim());
    field.value = "";
    error.textContent = "";
    begin();
  });
  document.getElementById("forget").addEventListener("click", () => ask(""));
  return {
    ask,
    hasKey: () => Boolean(sessionStorage.getItem(name)),
    header: () => `Bearer ${sessionStorage.getItem(name)}`,
    showWork() {
      const hasFocus = form.contains(document.activeElement);
      form.hidden = true;
      work.hidden = false;
      if (hasFocus) {
        // It would fall to the beginning of the page.
        work.tabIndex = -1;
        work.focus();
      }
    },
  };
}
