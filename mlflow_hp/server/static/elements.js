// Small elements that several parts of the page make.

export const element = (id) => document.getElementById(id);

export function listItem(box, text) {
  const label = document.createElement("label");
  label.append(box, ` ${text}`);
  const item = document.createElement("li");
  item.append(label);
  return item;
}

// Fill a choice with values, after a `first` one ([value, text]); a chosen value that is none of them stays a choice.
export function fillChoice(select, values, chosen, first = undefined) {
  const items = [...(first ? [first] : []), ...values.map((value) => [value, value])].map(([value, text]) => {
    const option = document.createElement("option");
    option.value = value;
    option.textContent = text;
    return option;
  });
  if (chosen && !values.includes(chosen) && chosen !== "*") items.push(new Option(chosen, chosen));
  select.replaceChildren(...items);
  select.value = chosen;
}
