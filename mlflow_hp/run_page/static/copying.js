// Code with a button that copies it.

export function copyable(text, label) {
  const box = document.createElement("p");
  box.className = "copy";
  const code = Object.assign(document.createElement("code"), { textContent: text });
  if (text.includes("\n")) code.className = "lines";
  const button = Object.assign(document.createElement("button"), { type: "button", textContent: label });
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code); // without a secure address, the browser leaves copying to the user
      button.textContent = "Selected: press Ctrl+C";
    }
  });
  box.append(code, " ", button);
  return box;
}
