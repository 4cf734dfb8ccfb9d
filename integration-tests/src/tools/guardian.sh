# Cleans up after a stand-in whose process was killed and could not do it itself.
#
# Standard input is a pipe from that process: it ends when the process does. If the folder
# ($1) is gone by then, all is well. The kernel has sent the servers a signal to quit; what is
# left to do are frozen ones, which cannot hear it, and the folder.

cat > /dev/null

# Whether process $1 is the server whose data are in $2, and not another that was given its id.
serves() {
    [ "$(readlink "/proc/$1/cwd")" = "$2" ]
}

for data in "$1"/*/data; do
    # postmaster.pid or mariadbd.pid
    pid=$(cat "$data"/*.pid 2> /dev/null | head -n 1)
    [ -n "$pid" ] || continue
    serves "$pid" "$data" || continue
    kill -QUIT "$pid"
    kill -CONT $(cat "/proc/$pid/task/$pid/children") 2> /dev/null
    kill -CONT "$pid"
    tries=0
    while serves "$pid" "$data" && [ "$tries" -lt 100 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
done
rm -rf "$1"
