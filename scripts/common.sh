# Shared by the scripts of this folder; source it.
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# install_packages [LIST...]: installs the packages of packages.txt, and of further lists of this
# folder, that are missing: as root, else with sudo, else it prints the one line to run and stops. A
# program of the package's name that came another way counts as installed.
install_packages() {
  local missing=() name
  command -v dpkg-query >/dev/null || {
    echo "This is not a Debian system: install the equivalents of scripts/packages.txt yourself." >&2
    return 0
  }
  while read -r name; do
    case "$name" in ''|\#*) continue ;; esac
    dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q 'install ok installed' ||
      command -v "$name" >/dev/null || missing+=("$name")
  done < <(cd "$ROOT/scripts" && cat packages.txt "$@")
  [ ${#missing[@]} -eq 0 ] && return 0
  local run=()
  if [ "$(id -u)" -ne 0 ]; then
    if command -v sudo >/dev/null; then
      run=(sudo)
    else
      echo "Missing packages, and no root or sudo to install them. As root, run:" >&2
      echo "  apt-get update && apt-get install -y ${missing[*]}" >&2
      return 1
    fi
  fi
  echo "Installing: ${missing[*]}" >&2
  "${run[@]}" apt-get update -qq &&
    "${run[@]}" env DEBIAN_FRONTEND=noninteractive \
      apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# configure PRESET FOLDER [cmake options...]: an existing build folder is reused; the log is shown only
# when configuring fails.
configure() {
  local preset=$1 folder=$2
  shift 2
  mkdir -p "$ROOT/build"
  cmake --preset "$preset" -S "$ROOT" -B "$ROOT/$folder" "$@" > "$ROOT/$folder.configure.log" 2>&1 || {
    cat "$ROOT/$folder.configure.log" >&2
    return 1
  }
}
