// What scrolls within itself must be reachable by keyboard, and what opens must have a name.
function reachable() {
  for (const box of document.querySelectorAll(".bd-article table, .bd-article pre, .bd-article .cell_output, .bd-sidebar-primary")) {
    if (box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight) box.tabIndex = 0;
    if (box.matches("table")) {
      fade(box);
      box.onscroll = () => fade(box);
    }
  }
}
function fade(table) {
  table.classList.toggle("more-to-the-right", table.scrollLeft + table.clientWidth < table.scrollWidth - 1);
}
document.addEventListener("DOMContentLoaded", () => {
  // A printed sentence wraps; a printed table, which has gaps or lines, and a printed program scroll.
  for (const printed of document.querySelectorAll(".bd-article .cell_output pre")) {
    printed.classList.toggle("wraps", !/\S {2,}\S|[│┃]|^(def|class) /m.test(printed.textContent));
  }
  for (const cell of document.querySelectorAll(".bd-article table:not(.dataframe) :is(td, th)")) {
    cell.classList.toggle("text", cell.textContent.trim().length > 18);
  }
  for (const opener of document.querySelectorAll("nav summary")) {
    opener.setAttribute("aria-label", "Pages below " + opener.closest("li").querySelector("a").textContent.trim());
  }
});
window.addEventListener("load", reachable);
window.addEventListener("resize", reachable);
