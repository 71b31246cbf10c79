// What scrolls sideways must be reachable by keyboard, too.
function makeReachable() {
  for (const box of document.querySelectorAll(".table-wrapper, .highlight pre, math[display=block]")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}

window.addEventListener("load", makeReachable);
window.addEventListener("resize", makeReachable);

// What the theme leaves out for those who listen to the page.
document.addEventListener("DOMContentLoaded", () => {
  for (const caption of document.querySelectorAll(".caption[role=heading]")) caption.ariaLevel = "2";
  for (const head of document.querySelectorAll("th")) {
    if (!head.textContent.trim()) head.replaceWith(document.createElement("td")); // a corner is no heading
  }
  const names = { ".sidebar-drawer": "All pages", ".toc-drawer": "On this page" };
  for (const [place, name] of Object.entries(names)) document.querySelector(place)?.setAttribute("aria-label", name);
});
