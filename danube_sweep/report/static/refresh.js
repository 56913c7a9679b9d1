// The page of a running sweep loads itself again and stays as it was: filter, chosen axes, opened rows, place.
(() => {
  const every = Number(document.body.dataset.refresh);
  const KEY = `danube-sweep ${location.pathname}`;
  const fields = () => [...document.querySelectorAll("main input, main select")];
  const value = (one) => (one.type === "checkbox" ? one.checked : one.value);

  const keep = () => {
    const open = [...document.querySelectorAll(".opener[aria-expanded=true]")].map((one) => one.closest("tbody").id);
    const state = { fields: fields().map((one) => [one.id || one.value, value(one)]), open, place: scrollY };
    sessionStorage.setItem(KEY, JSON.stringify(state));
  };
  const restore = () => {
    const { fields: kept, open, place } = JSON.parse(sessionStorage.getItem(KEY));
    sessionStorage.removeItem(KEY);
    const before = new Map(kept);
    for (const one of fields()) {
      const was = before.get(one.id || one.value);
      if (was === undefined || was === value(one)) continue;
      if (one.type === "checkbox") one.checked = was;
      else one.value = was;
      one.dispatchEvent(new Event(one.type === "search" ? "input" : "change", { bubbles: true }));
    }
    open.map((key) => document.querySelector(`#${key} .opener`)).forEach((one) => one && one.click());
    scrollTo(0, place);
  };
  if (sessionStorage.getItem(KEY)) restore();
  if (!every) return;
  const load = () => {
    keep();
    location.reload();
  };
  const timer = setInterval(load, every * 1000);
  document.addEventListener("load-again", load);
  document.getElementById("stop").addEventListener("click", (event) => {
    clearInterval(timer);
    event.target.textContent = "No longer loading";
    event.target.disabled = true;
  });
})();
