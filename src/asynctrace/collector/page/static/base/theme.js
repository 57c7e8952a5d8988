// Before anything is painted: the theme that was chosen. A classic script, so that no other theme flashes up first.
{
  let chosen = "system";
  try {
    chosen = localStorage.getItem("asynctrace.theme") ?? "system";
  } catch {
    // storage may be forbidden: the system's theme, then
  }
  document.documentElement.dataset.theme = ["dark", "light"].includes(chosen) ? chosen : "system";
}
